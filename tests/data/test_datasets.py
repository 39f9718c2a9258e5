import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from omegaconf import OmegaConf

from sparse_detr.data.datasets import (
    class_names_of,
    load_custom_dataset,
    load_dataset,
    load_shapes_dataset,
    resolve_num_classes,
)


def load(folder: Any, name: str = "datasets_test", **options: Any) -> list[dict[str, Any]]:
    return load_custom_dataset(name, folder.save(), folder.images, **options)


def config(num_classes: Any, train: Any = None, test: Any = None) -> Any:
    loader = {"train": {"dataset": train}, "test": {"dataset": test}}
    return OmegaConf.create({"model": {"num_classes": num_classes}, "dataloader": loader})


def test_gapped_category_ids_become_contiguous_classes(coco_folder: Any) -> None:
    dicts = load(coco_folder)
    assert [d["image_id"] for d in dicts] == [7, 9]
    assert [a["category_id"] for a in dicts[0]["annotations"]] == [0, 1]
    assert dicts[0]["file_name"] == str(coco_folder.images / "a.png")
    metadata = MetadataCatalog.get("datasets_test")
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 5: 1}
    assert class_names_of("datasets_test") == ["cat", "dog"]
    assert len(class_names_of("datasets_test")) == 2
    assert DatasetCatalog.get("datasets_test") == dicts


def test_other_paths_replace_the_data_set_of_that_name(coco_folder: Any) -> None:
    load(coco_folder)
    coco_folder.data["categories"].append({"id": 8, "name": "cow"})
    load(coco_folder)
    assert len(class_names_of("datasets_test")) == 3


def test_images_without_annotation_are_kept_unless_asked(coco_folder: Any) -> None:
    coco_folder.data["annotations"].pop()
    assert [len(d["annotations"]) for d in load(coco_folder)] == [2, 0]
    assert [d["image_id"] for d in load(coco_folder, filter_empty=True)] == [7]


def test_errors_in_the_annotations_stop_with_one_message(coco_folder: Any) -> None:
    coco_folder.data["annotations"][1]["bbox"] = [1.0, 2.0, 3.0]
    coco_folder.data["annotations"][2]["category_id"] = 77
    with pytest.raises(ValueError) as caught:
        load(coco_folder)
    message = str(caught.value)
    assert "bbox_length: 1" in message and "unknown_category: 1" in message
    assert str(coco_folder.json) in message


def test_an_empty_data_set_is_refused(coco_folder: Any) -> None:
    coco_folder.data.update(images=[], annotations=[])
    with pytest.raises(ValueError, match="no_images"):
        load(coco_folder)


def test_paths_that_are_not_given_or_do_not_exist_are_named(coco_folder: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.train_json"):
        load_custom_dataset("datasets_test", None, coco_folder.images)
    with pytest.raises(FileNotFoundError, match="image folder"):
        load_custom_dataset("datasets_test", coco_folder.save(), coco_folder.root / "gone")
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        load_custom_dataset("datasets_test", coco_folder.root / "gone.json", coco_folder.images)


def test_a_wrong_image_folder_is_noticed_on_loading(coco_folder: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"none of the first 2 images"):
        load_custom_dataset("datasets_test", coco_folder.save(), coco_folder.root)


def test_single_missing_images_are_left_to_the_loaders_policy(coco_folder: Any) -> None:
    (coco_folder.images / "a.png").unlink()
    assert len(load(coco_folder)) == 2


@pytest.mark.parametrize("complete", [True, False])
def test_perfect_predictions_reach_full_ap_even_without_area_in_the_file(
    coco_folder: Any, complete: bool
) -> None:
    if not complete:
        for annotation in coco_folder.data["annotations"]:
            del annotation["area"], annotation["iscrowd"]
    before = json.dumps(coco_folder.data)
    dicts = load(coco_folder)
    assert coco_folder.json.read_text() == before  # the user's file is never written
    evaluator = COCOEvaluator("datasets_test", tasks=["bbox"], use_fast_impl=False)
    evaluator.reset()
    for record in dicts:
        boxes = torch.tensor([a["bbox"] for a in record["annotations"]])
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.ones(len(boxes))
        instances.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
        evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == pytest.approx(100) and results["AP-dog"] == pytest.approx(100)


def test_a_completed_copy_of_the_annotations_goes_with_its_process(
    coco_folder: Any, tmp_path: Path
) -> None:
    del coco_folder.data["annotations"][0]["area"]
    program = (
        "import sys; from detectron2.data import MetadataCatalog as catalogue;"
        "from sparse_detr.data.datasets import load_custom_dataset as load;"
        "load('t', sys.argv[1], sys.argv[2]); copy = catalogue.get('t').json_file;"
        "load('u', sys.argv[1], sys.argv[2]); assert catalogue.get('u').json_file != copy;"
        "print(copy, 'area' in open(copy).read())"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, str(coco_folder.save()), str(coco_folder.images)],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    copy, completed = done.stdout.splitlines()[-1].split()
    assert Path(copy).is_relative_to(temporary) and completed == "True"
    assert not Path(copy).exists()
    assert not list(temporary.glob("sparse_detr_*"))


def test_unregistered_names_get_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'coco_2017_train'"):
        load_dataset("coco_2017_trian")
    with pytest.raises(ValueError, match="at least one"):
        load_dataset([])


def test_a_missing_registered_annotation_file_tells_the_environment_variable(
    coco_folder: Any,
) -> None:
    load(coco_folder)
    coco_folder.json.unlink()
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS"):
        load_dataset("datasets_test")


def test_registered_names_are_loaded_with_their_empty_images(coco_folder: Any) -> None:
    coco_folder.data["annotations"].pop()
    load(coco_folder)
    assert len(load_dataset("datasets_test")) == 2
    assert len(load_dataset(["datasets_test"], filter_empty=True)) == 1


def test_a_malformed_registered_data_set_is_one_message(coco_folder: Any) -> None:
    load(coco_folder)
    coco_folder.json.write_text("{")
    with pytest.raises(ValueError, match=r"datasets_test .*cannot be used.*check_dataset"):
        load_dataset("datasets_test")


def test_shapes_are_generated_on_loading_and_registered(tmp_path: Path) -> None:
    dicts = load_shapes_dataset("shapes_for_test", tmp_path, 3, seed=1, image_size=48)
    assert len(dicts) == 3 and Path(dicts[0]["file_name"]).is_file()
    assert len(class_names_of("shapes_for_test")) >= 5
    assert (tmp_path / "shapes_for_test" / "recipe.json").is_file()


def test_a_class_count_in_the_config_is_taken_as_it_is() -> None:
    assert resolve_num_classes(config(7)) == 7


@pytest.mark.parametrize("value", [0, -1, "many", 2.5, None, True])
def test_a_class_count_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"model\.num_classes"):
        resolve_num_classes(config(value))


def test_auto_takes_the_class_count_from_the_annotation_files(coco_folder: Any) -> None:
    paths = {"json_file": str(coco_folder.save()), "image_root": str(coco_folder.images)}
    node = {"names": "datasets_auto", **paths}
    assert resolve_num_classes(config("auto", node, node)) == 2


def test_auto_refuses_splits_with_different_categories(coco_folder: Any) -> None:
    node = {"names": "t", "json_file": str(coco_folder.save()), "image_root": str(coco_folder.root)}
    coco_folder.data["categories"].reverse()
    coco_folder.data["categories"][0]["name"] = "wolf"
    coco_folder.json = coco_folder.root / "other.json"
    other = {**node, "json_file": str(coco_folder.save())}
    with pytest.raises(ValueError, match=r"different categories.*wolf"):
        resolve_num_classes(config("auto", node, other))


def test_auto_knows_registered_and_drawn_data_sets() -> None:
    coco = {"names": "coco_2017_train"}
    assert resolve_num_classes(config("auto", coco, {"names": ["coco_2017_val"]})) == 80
    drawn = {"names": "shapes_train", "num_images": 5}
    assert resolve_num_classes(config("auto", drawn, drawn)) == 6


def test_real_coco_images_load_with_crowds_and_empty_images(
    data_folder: Callable[[str], Path],
) -> None:
    root = data_folder("coco")
    dicts = load_custom_dataset(
        "datasets_coco", root / "annotations" / "instances_train2017.json", root / "train2017"
    )
    assert len(dicts) == 50 and len(class_names_of("datasets_coco")) == 80
    annotations = [a for d in dicts for a in d["annotations"]]
    assert sum(a["iscrowd"] for a in annotations) == 5
    assert any(not d["annotations"] for d in dicts)
    assert {a["category_id"] for a in annotations} <= set(range(80))
