import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import make_shapes_dataset as command
from sparse_detr.data import shapes
from sparse_detr.data.checker import check_dataset
from sparse_detr.data.shapes import ANNOTATION_FILE, IMAGE_FOLDER, generate_shapes_dataset


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    a = read_all(generate_shapes_dataset(tmp_path / "a", 5, seed=3, image_size=48))
    b = read_all(generate_shapes_dataset(tmp_path / "b", 5, seed=3, image_size=48))
    c = read_all(generate_shapes_dataset(tmp_path / "c", 5, seed=4, image_size=48))
    assert a == b and len(a) == 7
    assert a[ANNOTATION_FILE] != c[ANNOTATION_FILE]
    assert a[f"{IMAGE_FOLDER}/000001.png"] != c[f"{IMAGE_FOLDER}/000001.png"]


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = read_all(generate_shapes_dataset(tmp_path / "few", 2, seed=3, image_size=48))
    many = read_all(generate_shapes_dataset(tmp_path / "many", 4, seed=3, image_size=48))
    for name in (f"{IMAGE_FOLDER}/000001.png", f"{IMAGE_FOLDER}/000002.png"):
        assert few[name] == many[name]


def test_the_checker_finds_nothing_wrong(tmp_path: Path) -> None:
    folder = generate_shapes_dataset(tmp_path / "a", 60, seed=1, image_size=64)
    report = check_dataset(folder / ANNOTATION_FILE, folder / IMAGE_FOLDER, files="decode")
    assert report.counts == {} and report.num_files_opened == 60


def test_varying_sizes_are_drawn_independently(tmp_path: Path) -> None:
    folder = generate_shapes_dataset(tmp_path / "a", 40, seed=1, image_size=(40, 90))
    images = json.loads((folder / ANNOTATION_FILE).read_text())["images"]
    heights, widths = ({i[key] for i in images} for key in ("height", "width"))
    assert min(heights | widths) >= 40 and max(heights | widths) <= 90
    assert len(heights) > 10 and len(widths) > 10
    assert any(i["height"] != i["width"] for i in images)
    first = Image.open(folder / IMAGE_FOLDER / images[0]["file_name"])
    assert first.size == (images[0]["width"], images[0]["height"])


def test_a_second_call_with_the_same_recipe_writes_nothing(tmp_path: Path) -> None:
    folder = generate_shapes_dataset(tmp_path / "a", 4, seed=1, image_size=48)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    generate_shapes_dataset(folder, 4, seed=1, image_size=48)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_another_recipe_replaces_the_generated_folder(tmp_path: Path) -> None:
    folder = generate_shapes_dataset(tmp_path / "a", 4, seed=1, image_size=48)
    generate_shapes_dataset(folder, 2, seed=1, image_size=48)
    assert len(list((folder / IMAGE_FOLDER).iterdir())) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="another folder"):
        generate_shapes_dataset(folder, 2, seed=1)
    assert (folder / "thesis.txt").read_text() == "precious"


def test_an_interrupted_call_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = shapes.draw_image, []

    def fail_on_the_third(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shapes, "draw_image", fail_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes_dataset(tmp_path / "a", 5, seed=1, image_size=48)
    assert list(tmp_path.iterdir()) == []


def test_two_thousand_images_take_less_than_forty_seconds(tmp_path: Path) -> None:
    start = time.process_time()
    generate_shapes_dataset(tmp_path / "a", 50, seed=1)
    assert (time.process_time() - start) * 2000 / 50 < 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "num_images"),
        ({"seed": -1}, "seed"),
        ({"image_size": 8}, "image_size"),
        ({"image_size": (90, 40)}, "image_size"),
        ({"image_size": (40, 60, 80)}, "image_size"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_shapes_dataset(**{"root": tmp_path / "a", "num_images": 2, "seed": 0, **options})
    assert not (tmp_path / "a").exists()


def test_the_command_writes_the_data_set_and_reports_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "a"
    assert command.main([str(root), "--num-images", "3", "--image-size", "40", "60"]) == 0
    assert len(list((root / IMAGE_FOLDER).iterdir())) == 3
    assert np.asarray(Image.open(root / IMAGE_FOLDER / "000001.png")).ndim == 3
    assert command.main([str(tmp_path / "b"), "--num-images", "0"]) == 2
    assert "num_images" in capsys.readouterr().err
