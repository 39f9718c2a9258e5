"""Files of many images: their names, and what is written on request alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from builders import small_detector
from sparse_detr.data.augmentation import ResizeShorterSide
from sparse_detr.data.mapper import BadSampleError, DetrDatasetMapper
from sparse_detr.visualization.sparsity import (
    BoxOptions,
    QueryChoice,
    SparsityOptions,
    write_sparsity,
)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    annotation = {"bbox": [8, 6, 40, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "scene.png")
        made.append({"file_name": str(tmp_path / folder / "scene.png")})
    made[0]["annotations"] = [annotation]
    return made


def written(records: list[dict[str, Any]], output: Path, **options: Any) -> list[tuple[Path, ...]]:
    mapper = DetrDatasetMapper(False, [ResizeShorterSide(90, 200)], image_format="RGB")
    shown = SparsityOptions(boxes=BoxOptions(score_threshold=0.0), **options)
    return list(write_sparsity(small_detector(), mapper, records, output, shown))


def test_images_of_one_name_get_files_of_their_own(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "x" / "out"
    files = written(records, output, with_panels=False)
    assert files == [
        (output / "scene_sparsity.png",),
        (output / "scene_2_sparsity.png",),
        (output / "sparsity.html",),
    ]
    page = (output / "sparsity.html").read_text(encoding="utf-8")
    assert page.count('"picture":"data:image/jpeg;base64,') == 2
    assert page.count('"truth":null') == 1


def test_panels_lie_in_a_folder_per_image(records: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "out"
    files = written(records[:1], output, with_overview=False, with_page=False)
    (panels,) = files
    assert {path.parent for path in panels} == {output / "panels" / "scene"}
    assert sorted(p.name for p in output.rglob("*.png")) == sorted(p.name for p in panels)
    assert not (output / "sparsity.html").exists()


def test_pictures_come_out_alike_each_time(records: list[dict[str, Any]], tmp_path: Path) -> None:
    runs = [written(records, tmp_path / name, with_panels=False) for name in ("one", "two")]
    for first, second in zip(*runs, strict=True):
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_an_unreadable_image_stops_after_the_pictures_before_it(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    records.append({"file_name": str(tmp_path / "absent.png")})
    with pytest.raises(BadSampleError, match=r"absent\.png does not exist"):
        written(records, tmp_path / "out", with_panels=False)
    assert (tmp_path / "out" / "scene_2_sparsity.png").exists()


def test_choices_that_mean_one_query_give_no_panels_of_queries_that_nobody_asked_for(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    same = (QueryChoice(rank=0), QueryChoice(rank=0), QueryChoice(rank=0))
    names = [
        {
            p.name
            for p in written(records[:1], tmp_path / str(page), queries=same, with_page=page)[0]
        }
        for page in (True, False)
    ]
    assert names[0] == names[1]
    none = written(records[:1], tmp_path / "none", queries=(QueryChoice(rank=10**6),))[0]
    assert {p.name for p in none} == {n for n in names[0] if not n.startswith("query")}
