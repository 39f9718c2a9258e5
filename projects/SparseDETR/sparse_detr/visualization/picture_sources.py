"""Where the images of pictures come from: a config's data, a registered data set, files, folders.

Role in the flow: the input of the programs that draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig

from ..data.datasets import load_dataset
from ..engine.errors import user_errors
from ..inference.input_files import find_input_files

_OF_A_DATASET = 10
_SPLITS = {"val": "test", "train": "train"}


def image_records(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Gives a data set dictionary for each image file, those of folders in alphabetical order.

    Args:
        paths: Files, folders and patterns.

    Raises:
        UserError: A path does not exist, or a folder holds no image.
    """
    files = find_input_files(paths)
    return [{"file_name": str(file.path), "image_id": number} for number, file in enumerate(files)]


def dataset_records(config: DictConfig, name: str | None) -> list[dict[str, Any]]:
    """Gives the dictionaries of a data set of the config, or of a registered one.

    Args:
        config: The config tree.
        name: "val" or None (the evaluation data), "train", the name of one of these two, or that
            of a registered data set.

    Raises:
        UserError: There is no such data set, or it cannot be read.
    """
    with user_errors("data set", ValueError, OSError):
        for split, key in _SPLITS.items():
            dataset = config.dataloader[key].dataset
            if name in (None, split) or dataset.get("names") == name:
                return list(instantiate(dataset))
        return load_dataset(str(name))


def chosen_records(
    config: DictConfig, paths: Sequence[str] | None, dataset: str | None, limit: int | None
) -> list[dict[str, Any]]:
    """Gives the dictionaries of the images that a command line asks for.

    Args:
        config: The config tree.
        paths: Files and folders; None for a data set.
        dataset: See :func:`dataset_records`.
        limit: Images to take; None takes 10 of a data set, and all of the paths.

    Raises:
        UserError: There are no such images.
    """
    if paths is not None:
        return image_records(paths)[:limit]
    return dataset_records(config, dataset)[: limit or _OF_A_DATASET]
