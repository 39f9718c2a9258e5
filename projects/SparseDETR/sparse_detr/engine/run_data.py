"""The data of a run: loaded and checked before anything is written, optionally cut to a few images.

Role in the flow: first step of a run after the config. Loaders are built from the config's
``dataloader`` nodes around the dictionaries loaded here, so annotation files are read once.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from ..data.checker import check_dataset
from ..data.dataset_report import SKIPPABLE
from ..data.datasets import resolve_num_classes
from .checkpoint_file import write_text
from .errors import UserError, user_errors

logger = logging.getLogger(__name__)

DatasetDicts = list[dict[str, Any]]
FAST_DEV_IMAGES = 8
_SHOWN_FILES = 10


@dataclass(frozen=True)
class RunData:
    """The dictionaries of a run.

    Attributes:
        train: Training images; None when only an evaluation is done.
        test: Images to evaluate.
        subset_of: Name of the registered data set that ``test`` was cut from; empty where it is
            whole.
    """

    train: DatasetDicts | None
    test: DatasetDicts
    subset_of: str = ""

    @property
    def subset_name(self) -> str:
        """The name under which the cut evaluation data is registered."""
        return f"{self.subset_of}_subset_{len(self.test)}"


def load_run_data(config: DictConfig, with_training: bool) -> RunData:
    """Gives the checked data of a run; sets ``model.num_classes`` where that is ``auto``.

    ``train.overfit_images=N`` trains and evaluates on N training images, see
    :func:`images_to_overfit`; ``train.fast_dev_run`` evaluates on a few images.

    Args:
        config: The config tree.
        with_training: Whether training data is needed.

    Returns:
        The data.

    Raises:
        UserError: A file is missing, a data set is empty or its annotations do not fit the model.
    """
    classes = _class_count(config)
    loaders = config.dataloader
    overfit = int(config.train.overfit_images)
    if overfit < 0:
        raise UserError(f"train.overfit_images is {overfit}, expected 0 (off) or more")
    train = (
        load_checked(loaders.train, "dataloader.train", classes)
        if with_training or overfit
        else None
    )
    if overfit:
        assert train is not None
        chosen = images_to_overfit(train, overfit)
        return RunData(chosen, chosen, subset_of=dataset_name(loaders.train, "dataloader.train"))
    data = RunData(train, load_checked(loaders.test, "dataloader.test", classes))
    return first_images(config, data, FAST_DEV_IMAGES) if config.train.fast_dev_run else data


def first_images(config: DictConfig, data: RunData, count: int) -> RunData:
    """Gives the data with at most ``count`` images to evaluate.

    Args:
        config: The config tree.
        data: Whole data of its ``dataloader.test``.
        count: Images to leave, at least 1.
    """
    if len(data.test) <= count:
        return data
    name = dataset_name(config.dataloader.test, "dataloader.test")
    return replace(data, test=data.test[:count], subset_of=name)


def _class_count(config: DictConfig) -> int | None:
    if OmegaConf.select(config, "model.num_classes") is None:
        return None
    with user_errors("class count", ValueError, FileNotFoundError):
        count = resolve_num_classes(config)
    config.model.num_classes = count
    return count


def load_checked(loader: Mapping[str, Any], key: str, num_classes: int | None) -> DatasetDicts:
    """Gives the dictionaries of a loader node's data set, checked.

    Args:
        loader: ``dataloader.train`` or ``dataloader.test``.
        key: Its name, for messages.
        num_classes: The model's class count, None to leave that check out.

    Returns:
        At least one dictionary.

    Raises:
        UserError: Says what is wrong with the data.
    """
    with user_errors(key, ValueError, OSError):
        dicts: DatasetDicts = list(instantiate(loader["dataset"]))
        if not dicts:
            raise UserError(f"{key}: the data set is empty, it lists no images")
        report = check_dataset(dicts, num_classes=num_classes)
        report.name = key
        skips = loader.get("on_bad_sample", "raise") == "skip"
        report.raise_if_errors(ignoring=SKIPPABLE if skips else ())
    return dicts


def images_to_overfit(dicts: DatasetDicts, count: int) -> DatasetDicts:
    """Gives the ``count`` images whose smallest object is largest, to be learnt by heart.

    Whether data, model and losses fit shows on objects that can be seen; on tiny ones the
    resolution would be tested instead. Images of three or more objects come before others, and
    images with crowd regions are left out: a box of those may not be predicted or missed.

    Args:
        dicts: Detectron2's dictionaries.
        count: How many to choose.

    Raises:
        UserError: There are fewer images with objects.
    """
    usable = [
        record
        for record in dicts
        if record.get("annotations")
        and not any(annotation.get("iscrowd", 0) for annotation in record["annotations"])
    ]
    if len(usable) < count:
        raise UserError(
            f"train.overfit_images is {count}, but the training data has only {len(usable)} "
            "images with objects and without crowd regions"
        )
    return sorted(usable, key=_smallest_object, reverse=True)[:count]


def _smallest_object(record: Mapping[str, Any]) -> tuple[bool, float]:
    """Whether an image has several objects, and its smallest side of a box by its own side."""
    sides = [min(annotation["bbox"][2:]) for annotation in record["annotations"]]
    return len(sides) >= 3, min(sides) / min(record["height"], record["width"])


def dataset_name(loader: Mapping[str, Any], key: str) -> str:
    """Gives the registered name of a loader node's (first) data set.

    Raises:
        UserError: The node has no ``dataset.names``.
    """
    names = loader["dataset"].get("names")
    if not names:
        raise UserError(
            f"{key}.dataset has no key 'names', which cutting the data to a few images needs"
        )
    return str(names) if isinstance(names, str) else str(names[0])


def build_train_data(config: DictConfig, data: RunData) -> Any:
    """Gives the training loader; with accumulation it yields micro-batches of the configured batch.

    Args:
        config: The config tree; ``dataloader.train.total_batch_size`` is the batch of an optimiser
            step.
        data: The data of the run.

    Returns:
        An endless loader.

    Raises:
        UserError: The batch cannot be split, or an argument is out of range.
    """
    node = config.dataloader.train
    batch, parts = int(node.total_batch_size), int(config.train.accumulation)
    if parts < 1 or batch < 1 or batch % parts:
        raise UserError(
            f"dataloader.train.total_batch_size is {batch} and train.accumulation is {parts}; "
            "expected the batch of "
            "an optimiser step to be a multiple of the accumulated micro-batches"
        )
    with user_errors("dataloader.train", ValueError):
        return instantiate(
            {**_arguments(node), "dataset": data.train, "total_batch_size": batch // parts}
        )


def log_skipped_samples(loader: Any) -> None:
    """Logs how often bad samples were replaced; has to be called in all processes.

    Args:
        loader: The training loader; its ``skipped_files`` count since it was built.
    """
    gathered = comm.gather(Counter(getattr(loader, "skipped_files", {})))
    counts = sum(gathered, Counter[str]())
    if not counts:
        return
    shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_SHOWN_FILES))
    more = f", and {len(counts) - _SHOWN_FILES} more" if len(counts) > _SHOWN_FILES else ""
    logger.warning(
        "Bad samples were replaced %d times (dataloader.train.on_bad_sample=skip), by file: %s%s",
        counts.total(),
        shown,
        more,
    )


def build_test_data(config: DictConfig, data: RunData) -> Any:
    """Gives the evaluation loader of this process."""
    with user_errors("dataloader.test", ValueError):
        return instantiate({**_arguments(config.dataloader.test), "dataset": data.test})


def build_evaluators(config: DictConfig, data: RunData, output_dir: Path) -> list[Any]:
    """Gives the evaluators; for cut data, ones that know the images that are left.

    Args:
        config: The config tree.
        data: The data of the run.
        output_dir: Where the annotation file of cut data is written.

    Returns:
        Detectron2 evaluators: ``dataloader.evaluator``, and ``dataloader.sparsity_evaluator``
        unless it is null or absent.
    """
    if data.subset_of:
        register_subset(data, output_dir)
    evaluators = []
    for key in ("evaluator", "sparsity_evaluator"):
        if config.dataloader.get(key) is not None:
            arguments = _arguments(config.dataloader[key])
            if data.subset_of:
                arguments["dataset_name"] = data.subset_name
            evaluators.append(instantiate(arguments))
    return evaluators


def _arguments(node: DictConfig) -> dict[str, Any]:
    """Gives the entries of a node with references followed, without its data set."""
    return {str(key): value for key, value in node.items() if key != "dataset"}


def register_subset(data: RunData, output_dir: Path) -> None:
    """Registers the cut evaluation data with an annotation file of just its images.

    COCO's evaluation goes over all images of the annotation file, so the original one would count
    every other image as missed.

    Args:
        data: Data with ``subset_of``.
        output_dir: Where the annotation file goes.
    """
    original = MetadataCatalog.get(data.subset_of)
    name = data.subset_name
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: data.test)
    metadata = MetadataCatalog.get(name)
    for key in (
        "thing_classes",
        "thing_dataset_id_to_contiguous_id",
        "evaluator_type",
        "image_root",
    ):
        if original.get(key) is not None:
            metadata.set(**{key: original.get(key)})
    if original.get("json_file") is not None:
        path = output_dir / f"{name}.json"
        if comm.is_main_process():
            _write_subset(
                Path(original.json_file), {record["image_id"] for record in data.test}, path
            )
        comm.synchronize()
        metadata.set(json_file=str(path))
    logger.info(
        "Evaluating %d images of %s, registered as %s", len(data.test), data.subset_of, name
    )


def _write_subset(source: Path, image_ids: set[Any] | Sequence[Any], path: Path) -> None:
    content = json.loads(source.read_text(encoding="utf-8"))
    content["images"] = [image for image in content["images"] if image["id"] in image_ids]
    content["annotations"] = [
        entry for entry in content["annotations"] if entry["image_id"] in image_ids
    ]
    write_text(json.dumps(content), path)
