"""A sweep measures each keeping ratio once, and counts what the ratio came to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from builders import batch, small_detector
from sparse_detr.analysis import DetectorCost, count_flops
from sparse_detr.config.loading import load_config
from sparse_detr.engine.errors import UserError
from sparse_detr.evaluation import WithTokenUse, keep_ratio_sweep
from sparse_detr.evaluation.image_sparsity import ImageSparsity
from sparse_detr.evaluation.keep_ratio_sweep import (
    DENSE,
    KeepRatioSweep,
    image_gflops,
    ratios_to_sweep,
)
from sparse_detr.evaluation.objects import NO_OBJECTS
from sparse_detr.evaluation.sweep_report import sweep_table
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.token_selection import as_keep_ratio
from sparse_detr.visualization.sweep_curves import draw_sweep

SIZES = [(64, 64), (64, 64), (50, 90)]


def resnet_detector() -> TransformerDetector:
    """A small detector with the maps of an ordinary backbone."""
    overrides = [
        "model.num_classes=6",
        "model.hidden_dim=32",
        "model.feature_projection.num_groups=8",
        "model.encoder.feedforward_dim=32",
        "model.decoder.num_layers=1",
        "model.query_selection.num_queries=12",
    ]
    torch.manual_seed(0)
    return instantiate(load_config("quickstart", overrides).model).eval()


def images(model: object, ratio: object) -> list[ImageSparsity]:
    inputs = batch(SIZES)
    outputs = WithTokenUse(model)(inputs, ratio)
    return [
        ImageSparsity.of(index, output["token_use"], NO_OBJECTS)
        for index, output in enumerate(outputs)
    ]


def test_each_ratio_comes_once_and_the_dense_one_last() -> None:
    model = small_detector()
    texts = ["0.3", "1.0", "0.1", "0.30", "levels:0.1,0.2,0.3,1"]
    found = [str(ratio) for ratio in ratios_to_sweep(texts, model)]
    assert found == ["0.3", "0.1", "levels:0.1,0.2,0.3,1", "1"]
    assert model.keep_ratio == 0.3


@pytest.mark.parametrize("text", ["0", "1.5", "levels:0.1", "layers:0.1", "most:0.3", "all"])
def test_a_ratio_that_does_not_fit_is_an_input_error(text: str) -> None:
    with pytest.raises(UserError, match="--keep-ratios"):
        ratios_to_sweep(["0.3", text], small_detector())


def test_a_dense_model_cannot_be_swept() -> None:
    with pytest.raises(UserError, match="no keeping ratio to sweep"):
        ratios_to_sweep(["0.3"], small_detector("deformable_detr"))


@pytest.fixture(scope="module")
def cost() -> DetectorCost:
    return DetectorCost(resnet_detector())


@pytest.mark.parametrize("text", ["0.3", "1", "levels:0.1,0.2,0.3,1", "layers:0.5,0.3,0.1"])
def test_gflops_are_the_mean_over_the_images(cost: DetectorCost, text: str) -> None:
    model, ratio = resnet_detector(), as_keep_ratio(text)
    found = image_gflops(cost, images(model, ratio))
    distinct = {size: count_flops(model, size, ratio).total / 1e9 for size in set(SIZES)}
    counts = [distinct[size] for size in SIZES]
    assert found["mean"] == pytest.approx(sum(counts) / len(counts), rel=1e-12)
    assert (found["smallest"], found["largest"]) == (min(counts), max(counts))


def test_a_ratio_that_differs_per_image_is_counted_with_the_tokens_that_were_kept(
    cost: DetectorCost,
) -> None:
    found = images(resnet_detector(), "mass:0.5")
    expected = [cost.flops(image.image_size, sum(image.kept)) / 1e9 for image in found]
    assert image_gflops(cost, found)["mean"] == pytest.approx(sum(expected) / 3)
    assert len(set(expected)) > 1


def test_gflops_rise_with_the_ratio(cost: DetectorCost) -> None:
    ratios = [as_keep_ratio(rho) for rho in (0.05, 0.1, 0.3, 0.6)]
    model = resnet_detector()
    found = [image_gflops(cost, images(model, r))["mean"] for r in [*ratios, DENSE]]
    assert found == sorted(found) and found[0] < found[-1]


class Evaluation:
    """Stands for a checkpoint and its data."""

    def __init__(self) -> None:
        self.model = resnet_detector()
        self.num_images = len(SIZES)
        self.sparsity = self
        self.images: list[ImageSparsity] = []
        self.runs = 0

    def run(self, ratio: object) -> dict[str, dict[str, float]]:
        self.runs += 1
        self.images = images(self.model, ratio)
        corr = self.images[0].corr
        return {
            "bbox": {"AP": 10.0, "APl": float("nan"), "AP-cat": 3.0},
            "sparsity": {"corr": corr},
        }

    def samples(self, count: int) -> list:
        return batch(SIZES)[:count]


def sweep(folder: Path, evaluation: Evaluation, **settings: object) -> KeepRatioSweep:
    return KeepRatioSweep(evaluation, folder / "new" / "sweep.json", settings)


def test_what_is_measured_is_stored_and_not_measured_again(
    tmp_path: Path, cost: DetectorCost
) -> None:
    evaluation = Evaluation()
    first = sweep(tmp_path, evaluation, sizes=(1, 2))
    first.cost = cost  # found once for all tests
    first.measure(as_keep_ratio(0.3))
    again = sweep(tmp_path, evaluation, sizes=(1, 2))
    assert again.is_measured(as_keep_ratio("0.30")) and not again.is_measured(DENSE)
    point = json.loads((tmp_path / "new" / "sweep.json").read_text())["points"]["0.3"]
    assert point["bbox"] == {"AP": 10.0, "APl": None}
    assert 0 < point["sparsity"]["corr"] < 1 and point["gflops"]["mean"] > 0


def test_a_detector_that_cannot_be_counted_is_swept_without_gflops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(model: object) -> None:
        raise ValueError("no such sum")

    monkeypatch.setattr(keep_ratio_sweep, "inference_cost", refuse)
    measured = sweep(tmp_path, Evaluation())
    assert measured.measure(as_keep_ratio(0.3))["gflops"] is None
    assert "no such sum" in caplog.text
    report = {**measured.report, "latency": None}
    assert "| - | - |" in sweep_table(report, markdown=True)
    assert draw_sweep(list(report["points"].values()), tmp_path / "sweep.png").is_file()


@pytest.mark.parametrize(("share", "name"), [(1.0, "| 1 (all tokens) |"), (0.99, "| 1 |")])
def test_only_a_ratio_that_kept_all_tokens_is_called_so(share: float, name: str) -> None:
    point = {"keep_ratio": "1", "bbox": {}, "sparsity": {"keep_ratio": share}, "gflops": None}
    report = {"points": {"1": point}, "latency": None}
    assert sweep_table(report, markdown=True).splitlines()[-1].startswith(name)


def test_times_are_of_all_ratios_together(tmp_path: Path) -> None:
    from sparse_detr.benchmarking.timing import TimingPlan

    measured = sweep(tmp_path, Evaluation())
    ratios = [as_keep_ratio(0.3), DENSE]
    plan = TimingPlan(rounds=1, block_seconds=0, warmup_calls=1, patience_seconds=0)
    measured.measure_latency(ratios, 2, plan)
    again = sweep(tmp_path, Evaluation())
    assert again.has_latency(ratios, 2) and again.has_latency(ratios[:1], 2)
    assert not again.has_latency([*ratios, as_keep_ratio(0.1)], 2)
    assert not again.has_latency(ratios, 1)
    times = again.report["latency"]["milliseconds"]
    assert all(0 < t["smallest"] <= t["median"] <= t["largest"] for t in times.values())
    assert times["1"]["count"] == 2


def test_a_file_of_another_sweep_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, Evaluation(), weights="a.pth").save()
    with pytest.raises(UserError, match=r"weights 'a.pth' -> 'b.pth'.*--restart"):
        sweep(tmp_path, Evaluation(), weights="b.pth")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"settings": {}, "points": 3}',
        '{"settings": [], "machine": {}, "points": {}, "latency": null}',
        '{"settings": {}, "machine": {}, "points": {"0.3": 1}, "latency": null}',
        '{"settings": {}, "machine": {}, "points": {"0.3": {"bbox": {}}}, "latency": null}',
        '{"settings": {}, "machine": {}, "points": {}, "latency": []}',
        '{"settings": {}, "machine": {}, "points": {}, "latency": {"milliseconds": {}}}',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "new" / "sweep.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UserError, match="sweep"):
        sweep(tmp_path, Evaluation())


def test_times_of_another_machine_or_number_of_threads_are_measured_anew(tmp_path: Path) -> None:
    from sparse_detr.benchmarking.timing import TimingPlan

    ratios = [as_keep_ratio(0.3), DENSE]
    plan = TimingPlan(rounds=1, block_seconds=0, warmup_calls=1, patience_seconds=0)
    sweep(tmp_path, Evaluation()).measure_latency(ratios, 1, plan)
    file = tmp_path / "new" / "sweep.json"
    content = file.read_text()
    for key, value in (("processor", "another"), ("device", "cuda"), ("threads", 99)):
        report = json.loads(content)
        assert report["latency"]["machine"]["threads"] == torch.get_num_threads()
        report["latency"]["machine"][key] = value
        file.write_text(json.dumps(report))
        assert not sweep(tmp_path, Evaluation()).has_latency(ratios, 1), key
    file.write_text(content)
    assert sweep(tmp_path, Evaluation()).has_latency(ratios, 1)
