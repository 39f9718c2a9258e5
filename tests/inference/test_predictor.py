"""The predictor detects what the model itself does, for any kind and number of images."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from PIL import Image

from builders import small_config, small_detector
from small_run import SMALL, finished_run
from sparse_detr import Predictor
from sparse_detr.config.loading import load_config
from sparse_detr.config.overrides import ConfigError
from sparse_detr.data.augmentation import ResizeShorterSide
from sparse_detr.data.mapper import BadSampleError, DetrDatasetMapper
from sparse_detr.engine.errors import UserError
from sparse_detr.inference import ClassTable, OptimizedDetector

RESIZE = [ResizeShorterSide(64, 128)]
CLASSES = ClassTable(tuple("abcde"), (3, 5, 8, 9, 20))


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(small_detector(), RESIZE, CLASSES, score_threshold=0.0, batch_size=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


def assert_same(found: Instances, expected: Instances, tolerance: float = 0.0) -> None:
    assert found.image_size == expected.image_size
    assert len(found) == len(expected) > 0
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found.scores, expected.scores, **close)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, **close)
    assert torch.equal(found.pred_classes, expected.pred_classes)


def test_every_kind_of_input_gives_what_the_model_gives_for_the_file(
    predictor: Predictor, tmp_path: Path
) -> None:
    (pixels,) = pictures((50, 70))
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    mapper = DetrDatasetMapper(is_train=False, augmentations=RESIZE)
    with torch.no_grad():
        expected = predictor.model([mapper({"file_name": str(path)})])[0]["instances"]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for image in (path, str(path), Image.open(path), pixels, pixels / 255.0, tensor, tensor / 255):
        assert_same(predictor(image).instances, expected)


def test_a_red_image_stays_red_for_a_model_in_rgb_and_turns_for_one_in_bgr() -> None:
    red = np.zeros((30, 40, 3), dtype=np.uint8)
    red[..., 0] = 255
    for order, channel in (("RGB", 0), ("BGR", 2)):
        predictor = Predictor(small_detector(input_format=order), RESIZE)
        sample = predictor.sample(red)
        assert sample["image"].shape == (3, 64, 85)
        assert sample["image"].dtype == torch.uint8
        assert [int(c.max()) for c in sample["image"]] == [255 * (c == channel) for c in range(3)]
        assert (sample["height"], sample["width"]) == (30, 40)
        np.testing.assert_array_equal(predictor.read(red), red)
        np.testing.assert_array_equal(predictor(red, score_threshold=1.0).draw(), red)


def test_results_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    images = pictures((50, 70), (64, 64), (90, 33), (50, 70), (10, 200))
    together = Predictor(predictor.model, RESIZE, score_threshold=0.0, batch_size=5)(images)
    pairs = predictor(images)
    for image, one, other in zip(images, pairs, together, strict=True):
        alone = predictor(image).instances
        assert_same(one.instances, alone, 1e-4)
        assert_same(other.instances, alone, 1e-4)
    assert [found.index for found in together] == [0, 1, 2, 3, 4]


def test_one_image_gives_one_result_and_a_list_a_list(predictor: Predictor) -> None:
    (pixels,) = pictures((50, 70))
    assert predictor(pixels).instances.image_size == (50, 70)
    assert len(predictor([pixels])) == 1
    assert len(predictor((pixels, pixels))) == 2
    assert predictor([]) == []


def test_detections_below_the_threshold_are_left_out(predictor: Predictor) -> None:
    (pixels,) = pictures((50, 70))
    every = predictor(pixels).instances
    middle = float(every.scores.median())
    some = predictor(pixels, score_threshold=middle).instances
    assert 0 < len(some) < len(every)
    assert_same(some, every[every.scores >= middle])
    own = Predictor(predictor.model, RESIZE, score_threshold=middle)
    assert_same(own(pixels).instances, some)


def test_keep_ratio_of_a_call_is_that_of_the_model(predictor: Predictor) -> None:
    (pixels,) = pictures((100, 100))
    with torch.no_grad():
        expected = predictor.model([predictor.sample(pixels)], keep_ratio=0.9)[0]["instances"]
    assert_same(predictor(pixels, keep_ratio=0.9).instances, expected)
    assert predictor.model.keep_ratio == 0.3
    own = predictor(pixels).instances
    assert not torch.equal(own.scores, expected.scores)


def test_a_stream_reads_no_more_than_one_batch_ahead(predictor: Predictor) -> None:
    taken = []

    def images() -> Iterator[np.ndarray]:
        for number, image in enumerate(pictures(*[(40, 40)] * 5)):
            taken.append(number)
            yield image

    stream = predictor.stream(images())
    assert taken == []
    for number, found in enumerate(stream):
        assert found.index == number
        assert len(taken) <= number // 2 * 2 + 2
    assert taken == [0, 1, 2, 3, 4]


def test_a_stream_gives_what_comes_before_a_bad_image_and_names_it(
    predictor: Predictor, tmp_path: Path
) -> None:
    good, *_ = pictures((40, 40))
    damaged = tmp_path / "cut.jpg"
    damaged.write_bytes(b"no image")
    stream = predictor.stream([good, good, good, damaged, good])
    assert [next(stream).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BadSampleError, match=r"images\[3\]: image .*cut\.jpg cannot be read"):
        next(stream)


def test_a_stream_leaves_bad_images_out_where_it_is_told_to(predictor: Predictor) -> None:
    good, *_ = pictures((40, 40))
    errors: list[BadSampleError] = []
    images = ["absent.png", good, "gone.png", "away.png", good]
    stream = predictor.stream(images, on_bad_image=errors.append)
    assert [found.index for found in stream] == [1, 4]
    assert [str(error)[:9] for error in errors] == ["images[0]", "images[2]", "images[3]"]


def test_results_are_ordinary_tensors_on_the_cpu_without_gradients(predictor: Predictor) -> None:
    found = predictor(pictures((40, 40))[0]).instances
    boxes = found.pred_boxes.tensor
    assert not boxes.requires_grad
    assert not boxes.is_inference()
    found.pred_boxes.scale(2.0, 2.0)


def test_threads_may_share_a_predictor(predictor: Predictor) -> None:
    images = pictures((40, 40), (50, 30), (33, 66), (64, 64))
    expected = [predictor(image).instances for image in images]
    results: dict[int, Instances] = {}

    def work(number: int) -> None:
        for _ in range(3):
            results[number] = predictor(images[number]).instances

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert_same(results[number], expected[number])


def test_inspect_gives_the_same_detections_and_the_kept_tokens(predictor: Predictor) -> None:
    (pixels,) = pictures((50, 70))
    seen = predictor.inspect(pixels, keep_ratio=0.5)
    assert_same(seen.instances, predictor(pixels, keep_ratio=0.5).instances)
    assert seen.output.selection is not None


def test_numbers_that_are_not_finite_are_an_error_that_names_the_images() -> None:
    model = small_detector()
    with torch.no_grad():
        for name, parameter in model.heads.named_parameters():
            if name.endswith("class_embed.bias"):
                parameter.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"images\[0\], images\[1\]: .*must be finite"):
        Predictor(model, RESIZE, batch_size=2)(pictures((40, 40), (40, 40)))


def test_wrong_arguments_are_named(predictor: Predictor) -> None:
    image = pictures((40, 40))[0]
    with pytest.raises(ValueError, match=r"score_threshold must be a number in \[0, 1\], got 30"):
        predictor(image, score_threshold=30)
    with pytest.raises(ValueError, match="keep_ratio"):
        predictor(image, keep_ratio=0.0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Predictor(predictor.model, RESIZE, batch_size=0)
    with pytest.raises(TypeError, match=r"got generator; for an iterator use predictor.stream"):
        predictor(image for _ in range(3))
    with pytest.raises(TypeError, match="several images, got one"):
        predictor.stream(image)
    with pytest.raises(TypeError, match=r"images\[1\]: an image must be a file name.*NoneType"):
        predictor([image, None])
    with pytest.raises(ValueError, match="keep_ratio must be None"):
        Predictor(small_detector("deformable_detr"), RESIZE)(image, keep_ratio=0.3)


def test_a_model_in_training_mode_is_refused() -> None:
    model = small_detector()
    predictor = Predictor(model, RESIZE)
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        predictor(pictures((40, 40))[0])
    with pytest.raises(ValueError, match="training mode"):
        Predictor(model, RESIZE)


def test_from_config_takes_the_checkpoint_of_the_run_and_the_names_of_its_data(run: Path) -> None:
    predictor = Predictor.from_config(run / "config.yaml", device="cpu")
    assert predictor.weights == str(run / "model_0000001.pth")
    assert predictor.class_names is not None and predictor.class_names[0] == "circle"
    stored = torch.load(run / "model_0000001.pth", weights_only=True)["model"]
    state = predictor.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert predictor.sample(np.zeros((32, 48, 3), np.uint8))["image"].shape == (3, 64, 96)


@pytest.mark.parametrize("form", ["levels:0.1,0.3,0.5,1", "mass:0.6", "gflops:0.005"])
def test_other_forms_of_keep_ratio_do_not_depend_on_the_batch_either(
    predictor: Predictor, form: str
) -> None:
    images = pictures((50, 70), (64, 64), (90, 33))
    together = Predictor(predictor.model, RESIZE, score_threshold=0.0, batch_size=3)
    for image, found in zip(images, together(images, keep_ratio=form), strict=True):
        assert_same(found.instances, predictor(image, keep_ratio=form).instances, 1e-4)


def test_from_config_hands_its_arguments_on(run: Path) -> None:
    tree = load_config(run / "config.yaml")
    predictor = Predictor.from_config(
        tree,
        run / "model_0000001.pth",
        ["data.image_size=48", "model.postprocess.max_detections=7"],
        device="cpu",
        keep_ratio=0.7,
        score_threshold=0.0,
        optimize="exact",
        dtype="float64",
        batch_size=3,
        class_names=list("uvwxyz"),
    )
    assert isinstance(predictor.model, OptimizedDetector)
    assert predictor.model.keep_ratio == 0.7
    assert predictor.batch_size == 3
    found = predictor(np.zeros((32, 32, 3), np.uint8))
    assert len(found) == 7
    assert set(found.labels()) <= set("uvwxyz")
    assert found.instances.scores.dtype == torch.float64
    assert found.to_coco(1)[0]["category_id"] >= 1
    assert tree.model.num_classes == "auto", "the caller's config is not changed"


def test_a_converted_checkpoint_is_all_that_is_needed(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "model_0000001.pth", weights_only=True)
    changes = [text for text in SMALL if text.startswith("model.")] + ["model.num_classes=6"]
    file = tmp_path / "converted.pth"
    torch.save({**content, "config": {"name": "quickstart", "overrides": changes}}, file)
    predictor = Predictor.from_config(file, device="cpu")
    assert predictor.weights == str(file)
    bias = "heads.stages.0.class_embed.bias"
    assert torch.equal(predictor.model.state_dict()[bias], content["model"][bias])


def test_no_weights_are_a_user_error_unless_untrained_is_asked_for(tmp_path: Path) -> None:
    overrides = [f"train.output_dir={tmp_path}", "model.num_classes=6"]
    with pytest.raises(
        UserError, match=r"no weights: give --weights FILE .*holds no checkpoint.*untrained=True"
    ):
        Predictor.from_config("quickstart", None, overrides)
    predictor = Predictor.from_config("quickstart", None, overrides, untrained=True, device="cpu")
    assert predictor.weights is None
    with pytest.raises(UserError, match="but weights were given"):
        Predictor.from_config("quickstart", "a.pth", overrides, untrained=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device is 'gpu', expected auto, cpu"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16', expected float32 or float64"),
        ({"optimize": "fast"}, "optimize: precision must be one of"),
        ({"keep_ratio": 0.0}, "keep_ratio must be a number in"),
        ({"class_names": ["one"]}, "class_names: got 1 names, the model has 6 classes"),
        ({"score_threshold": 7}, "score_threshold must be a number"),
        ({"weights": "absent.pth"}, "absent.pth does not exist"),
    ],
)
def test_arguments_that_do_not_fit_are_user_errors(
    run: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Predictor.from_config(run / "config.yaml", **{"device": "cpu", **arguments})


def test_a_config_that_says_nothing_about_resizing_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"no key 'dataloader\.test\.mapper'"):
        Predictor.from_config(small_config(), device="cpu", untrained=True)


def test_a_config_whose_reader_and_model_differ_in_channel_order_is_a_user_error(
    run: Path,
) -> None:
    with pytest.raises(UserError, match=r"image_format is 'BGR', but model\.input_format is 'RGB'"):
        Predictor.from_config(
            run / "config.yaml", None, ["dataloader.train.mapper.image_format=BGR"], device="cpu"
        )


def test_a_misspelt_config_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        Predictor.from_config("sparse_detr/sparse_detr_r50_rho10")


def test_the_package_itself_is_imported_without_torch() -> None:
    code = (
        "import sys, sparse_detr; assert 'Predictor' in dir(sparse_detr);"
        "heavy = {'torch', 'detectron2', 'numpy'} & set(sys.modules); assert not heavy, heavy;"
        "from sparse_detr import Predictor; assert 'torch' in sys.modules;"
        "assert Predictor is sparse_detr.inference.Predictor"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import sparse_detr

    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = sparse_detr.Predicter
