"""Loaders for training and evaluation.

Role in the flow: the entry to the data side; what they yield is the `batched_inputs` of the
meta-architecture. Order, augmentation and batches of a training run are functions of the seed and
the iteration alone: they do not change with the number of workers, nor when a run is resumed with
`set_start_iteration`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from .mapper import BadSampleError, ClassIdError
from .sampler import ResumableTrainingSampler, StreamKey, TrainingBatchSampler
from .seeding import seeded_generators

logger = logging.getLogger(__name__)

Mapper: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

ON_BAD_SAMPLE = ("raise", "skip")
_REPLACEMENT_ATTEMPTS = 50


@dataclass(frozen=True)
class LoadedSample:
    """What a loader worker hands to the training process.

    Attributes:
        sample: the mapped sample; None when an error has to stop the run.
        error: the error to raise there; raising it in the worker would bury its message in a
            worker's traceback.
        skipped: (file name, reason) of each bad sample that was replaced.
    """

    sample: dict[str, Any] | None
    error: ValueError | None = None
    skipped: tuple[tuple[str, str], ...] = ()


class PositionedDataset(Dataset[LoadedSample]):
    """Maps samples under a seed of their own, made from (seed, position in the stream).

    Args:
        dicts: Detectron2 data set dictionaries.
        mapper: gives the model input of one dictionary.
        seed: seed of the run.
        on_bad_sample: "raise", or "skip" to take another image, drawn under the sample's own seed,
            in place of one that raises `BadSampleError`.
    """

    def __init__(
        self,
        dicts: Sequence[dict[str, Any]],
        mapper: Mapper,
        seed: int = 0,
        on_bad_sample: str = "raise",
    ) -> None:
        if on_bad_sample not in ON_BAD_SAMPLE:
            raise ValueError(
                f"on_bad_sample: got {on_bad_sample!r}, expected one of {', '.join(ON_BAD_SAMPLE)}"
            )
        # Serialised, so that worker processes share its memory instead of copying it.
        self._dicts = DatasetFromList(list(dicts), copy=False)
        self.mapper = mapper
        self.seed = seed
        self.on_bad_sample = on_bad_sample

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, key: int | StreamKey) -> LoadedSample:
        position, index = key if isinstance(key, tuple) else (int(key), int(key))
        skipped: list[tuple[str, str]] = []
        with seeded_generators(self.seed, position):
            for _ in range(_REPLACEMENT_ATTEMPTS):
                dataset_dict = self._dicts[index]
                try:
                    return LoadedSample(self.mapper(dataset_dict), skipped=tuple(skipped))
                except ClassIdError as error:
                    return LoadedSample(None, error)
                except BadSampleError as error:
                    if self.on_bad_sample == "raise":
                        return LoadedSample(None, error)
                    skipped.append((str(dataset_dict["file_name"]), str(error)))
                index = int(np.random.randint(len(self._dicts)))
        message = (
            f"{_REPLACEMENT_ATTEMPTS} bad samples in a row, the last: {skipped[-1][1]}; run "
            "tools/check_dataset.py on the data set"
        )
        return LoadedSample(None, BadSampleError(message), tuple(skipped))


def _usable_processors() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _keep_list(batch: list[LoadedSample]) -> list[LoadedSample]:
    return batch


class SampleLoader(DataLoader[Any]):
    """A `DataLoader` of `PositionedDataset` that yields lists of model inputs.

    Iterators are lazy: worker processes start, and the start position is read, when the first batch
    is asked for, not when a trainer takes the iterator.

    Attributes:
        skipped_files: how often each bad file was replaced by another sample so far.
    """

    skipped_files: Counter[str]

    def __init__(self, dataset: PositionedDataset, **options: Any) -> None:
        # Own generator: drawing the workers' base seed must not move the model's random numbers.
        generator = torch.Generator()
        generator.manual_seed(dataset.seed)
        # More workers than processors only cost memory; what is loaded does not depend on them.
        options["num_workers"] = min(options.get("num_workers", 0), _usable_processors())
        super().__init__(dataset, collate_fn=_keep_list, generator=generator, **options)
        self.skipped_files = Counter()

    def __iter__(self) -> Any:
        return self._iterate()

    def _iterate(self) -> Iterator[list[dict[str, Any]]]:
        for batch in super().__iter__():
            yield [self._unpack(loaded) for loaded in batch]

    def _unpack(self, loaded: LoadedSample) -> dict[str, Any]:
        for file_name, reason in loaded.skipped:
            if file_name not in self.skipped_files:
                logger.warning("Skipped a bad sample: %s", reason)
            self.skipped_files[file_name] += 1
        if loaded.error is not None:
            raise loaded.error
        assert loaded.sample is not None
        return loaded.sample


def _per_process_batch(total_batch_size: int) -> int:
    world_size = int(comm.get_world_size())
    if total_batch_size < 1 or total_batch_size % world_size:
        raise ValueError(
            f"total_batch_size: got {total_batch_size}, expected a positive multiple of the "
            f"{world_size} processes"
        )
    return total_batch_size // world_size


def build_train_loader(
    dataset: Sequence[dict[str, Any]],
    mapper: Mapper,
    total_batch_size: int,
    *,
    num_workers: int = 0,
    seed: int | None = None,
    shuffle: bool = True,
    aspect_ratio_grouping: bool = False,
    on_bad_sample: str = "raise",
) -> SampleLoader:
    """Gives the endless training loader of this process.

    Args:
        dataset: Detectron2 data set dictionaries.
        mapper: usually a `DetrDatasetMapper`.
        total_batch_size: images per batch over all processes.
        num_workers: loader processes, at most one per processor; 0 loads in the training process.
        seed: seed of order and augmentation; None or negative draws one, shared by all processes
            (then the order of a resumed run is another one).
        shuffle: False for the order of the data set.
        aspect_ratio_grouping: batches of wide or of tall images only; off in the released code.
        on_bad_sample: "raise", or "skip" to replace samples that cannot be read (counted in the
            loader's `skipped_files`).

    Returns:
        A loader whose items are lists of `total_batch_size / processes` dictionaries.

    Raises:
        ValueError: empty data set, or an argument out of range.
    """
    if seed is None or seed < 0:
        seed = int(comm.shared_random_seed())
        logger.info("Data order and augmentation use the drawn seed %d", seed)
    sampler = ResumableTrainingSampler(len(dataset), seed, shuffle)
    wide = [d["width"] > d["height"] for d in dataset] if aspect_ratio_grouping else None
    batches = TrainingBatchSampler(sampler, _per_process_batch(total_batch_size), wide)
    return SampleLoader(
        PositionedDataset(dataset, mapper, seed, on_bad_sample),
        batch_sampler=batches,
        num_workers=num_workers,
    )


def build_test_loader(
    dataset: Sequence[dict[str, Any]],
    mapper: Mapper,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
) -> SampleLoader:
    """Gives the evaluation loader of this process: its share of the images, each once, in order.

    Written out rather than taken from Detectron2, whose v0.6 fixes the batch size to one. A bad
    sample always raises: skipping it would change what is measured.

    Args:
        dataset: Detectron2 data set dictionaries.
        mapper: usually a `DetrDatasetMapper` with `is_train=False`.
        batch_size: images per batch and process; two in the released code.
        num_workers: loader processes; 0 loads in this process.

    Returns:
        A loader whose items are lists of up to `batch_size` dictionaries.

    Raises:
        ValueError: empty data set.
    """
    if not len(dataset):
        raise ValueError("dataset: got no images, expected at least one; the data set is empty")
    return SampleLoader(
        PositionedDataset(dataset, mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        drop_last=False,
        num_workers=num_workers,
    )


def set_start_iteration(
    loader: SampleLoader, iteration: int, batches_per_iteration: int = 1
) -> None:
    """Lets the next iteration over a training loader begin where an interrupted run would be.

    To be called on resume before the first batch is drawn. An iterator that has been made but not
    asked for a batch follows too; one that has yielded goes on as it was.

    Args:
        loader: from `build_train_loader`, built with the same seed, data set and batch size.
        iteration: number of finished training iterations.
        batches_per_iteration: loader batches per iteration, more than 1 with gradient accumulation.

    Raises:
        TypeError: the loader is not one of `build_train_loader`.
    """
    batches = getattr(loader, "batch_sampler", None)
    if not isinstance(batches, TrainingBatchSampler):
        raise TypeError(
            f"loader: got {type(loader).__name__} without a TrainingBatchSampler, expected a "
            "loader made by build_train_loader"
        )
    batches.set_start_batch(iteration * batches_per_iteration)
