"""One optimiser step: accumulation, clipping, and the stop on numbers that are not finite."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from toy import ToyDetector, run_toy, toy_config

from sparse_detr.criterion.finite_check import NonFinitePredictionError
from sparse_detr.engine.errors import TrainingDivergedError
from sparse_detr.engine.optimizer import build_adamw
from sparse_detr.engine.precision import MixedPrecision
from sparse_detr.engine.trainer import StepOptions, Trainer

CPU = torch.device("cpu")


def entry(index: int, boxes: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(index)
    instances = Instances((32, 32))
    corners = torch.rand(boxes, 4, generator=generator) * 16
    corners[:, 2:] += 16
    instances.gt_boxes = Boxes(corners)
    instances.gt_classes = torch.arange(boxes) % 5
    image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "image_id": index, "height": 32, "width": 32}


def toy(**options: Any) -> ToyDetector:
    torch.manual_seed(1)
    return ToyDetector(dropout=0.0, dtype="float64", **options)


def train(
    model: torch.nn.Module, batches: list, tmp_path: Path, steps: int, **options: Any
) -> Trainer:
    optimizer = build_adamw(model, global_batch=16, lr=1e-2)
    step = StepOptions(output_dir=str(tmp_path), **options)
    trainer = Trainer(model, batches, optimizer, MixedPrecision(False, "bfloat16", CPU), step)
    trainer.train(0, steps)
    return trainer


@pytest.mark.parametrize("counts", [(3, 1, 0, 2), (4, 4, 1, 0)])
def test_accumulated_micro_batches_equal_one_batch(tmp_path: Path, counts: tuple[int, ...]) -> None:
    images = [entry(index, boxes) for index, boxes in enumerate(counts)]
    whole, parts = toy(), toy()
    train(whole, [images] * 5, tmp_path, 5)
    train(parts, [images[:2], images[2:]] * 5, tmp_path, 5, accumulation=2)
    for (name, left), right in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-12, rtol=1e-9, msg=name)


def test_the_recorded_losses_of_accumulated_micro_batches_are_those_of_the_batch(
    tmp_path: Path,
) -> None:
    images = [entry(index, boxes) for index, boxes in enumerate((3, 1, 2, 2))]
    whole = train(toy(), [images], tmp_path, 1)
    parts = train(toy(), [images[:2], images[2:]], tmp_path, 1, accumulation=2)
    for name in (
        "total_loss",
        "loss_class",
        "loss_bbox",
        "loss_decoder_attention_map",
        "grad_norm",
    ):
        expected = whole.storage.history(name).latest()
        assert parts.storage.history(name).latest() == pytest.approx(expected, rel=1e-12), name


def test_gradients_are_clipped_to_the_total_norm(tmp_path: Path) -> None:
    model = toy()
    trainer = train(model, [[entry(0, 3)]], tmp_path, 1, max_norm=0.01)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm == pytest.approx(0.01, rel=1e-3)
    assert trainer.storage.history("grad_norm").latest() > 0.02


def test_no_clipping_leaves_the_gradients(tmp_path: Path) -> None:
    model = toy()
    trainer = train(model, [[entry(0, 3)]], tmp_path, 1, max_norm=0.0)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(trainer.storage.history("grad_norm").latest())


def test_a_loss_that_is_not_finite_stops_and_keeps_batch_and_weights(tmp_path: Path) -> None:
    model = toy(fail_at=3)
    images = [entry(7, 2), entry(8, 1)]
    with pytest.raises(TrainingDivergedError) as caught:
        train(model, [images] * 5, tmp_path, 5)
    message = str(caught.value)
    for part in ("iteration 2", "loss_bbox=nan", "[7, 8]", "main 0.01", "nan_2.pt"):
        assert part in message
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    dump = torch.load(tmp_path / "nan_2.pt", weights_only=True)
    assert dump["iteration"] == 2 and dump["image_ids"] == [7, 8]
    assert torch.equal(dump["batch"][0]["image"], images[0]["image"])
    assert torch.equal(
        dump["batch"][0]["instances"]["gt_boxes"], images[0]["instances"].gt_boxes.tensor
    )


def test_a_batch_that_cannot_be_written_does_not_hide_why_training_stopped(
    tmp_path: Path,
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(TrainingDivergedError, match=r"loss_bbox=nan.*could not be written \(") as e:
        train(toy(fail_at=1), [[entry(7, 2)]], occupied / "run", 1)
    assert e.value.dump_path == ""


def test_a_prediction_that_is_not_finite_names_its_stage_and_images(tmp_path: Path) -> None:
    class Failing(ToyDetector):
        def losses(self, *args: Any) -> dict:
            raise NonFinitePredictionError("decoder layer 3", "boxes", [8])

    with pytest.raises(TrainingDivergedError, match=r"decoder layer 3.*Images: \[8\]"):
        train(Failing(), [[entry(7, 2), entry(8, 1)]], tmp_path, 1)


def test_a_gradient_that_is_not_finite_stops_before_the_step_and_names_the_parameter(
    tmp_path: Path,
) -> None:
    model = toy()
    model.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = model.head.bias.detach().clone()
    with pytest.raises(TrainingDivergedError, match=r"first in parameter head.weight"):
        train(model, [[entry(0, 2)]], tmp_path, 1)
    assert torch.equal(model.head.bias, before)


def test_a_loader_that_ends_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="loader ended"):
        train(toy(), [[entry(0, 2)]], tmp_path, 2)


def test_nothing_is_evaluated_or_finished_after_a_failure(
    shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDivergedError):
        run_toy(toy_config(shapes_root, tmp_path / "run", "model.fail_at=12"))
    assert (tmp_path / "run" / "nan_11.pt").is_file()
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.parametrize(
    ("options", "name"), [({"accumulation": 0}, "accumulation"), ({"max_norm": -1}, "max_norm")]
)
def test_step_options_out_of_range_are_refused(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        StepOptions(**options)
