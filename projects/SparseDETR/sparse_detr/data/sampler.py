"""Which image comes when: an endless shuffled stream that can start anywhere.

Role in the flow: feeds the training loader. Detectron2's own training sampler begins again at its
first index when a run is resumed; here the stream is a function of the seed and the position alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.utils import comm
from torch.utils.data import Sampler

StreamKey = tuple[int, int]
"""(position in the global stream, index of the image)."""


class ResumableTrainingSampler(Sampler[StreamKey]):
    """Gives the endless stream of (position, image index) of this process.

    The global stream is one permutation of all images per epoch, each from (seed, epoch). Process
    r of W takes the positions r, r + W, ..., so a global batch holds the same images however many
    processes share it.

    Args:
        size: number of images, at least 1.
        seed: seed of the permutations, at least 0, the same in all processes.
        shuffle: False for the order of the data set.
        rank: index of this process; None asks Detectron2.
        world_size: number of processes; None asks Detectron2.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(
                f"size: got {size}, expected at least one image: the data set is empty"
            )
        if seed < 0:
            raise ValueError(f"seed: got {seed}, expected a number >= 0")
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = comm.get_rank() if rank is None else rank
        self.world_size = comm.get_world_size() if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: got {self.rank}, expected 0 <= rank < {self.world_size}")
        self._start = 0

    def set_start(self, position: int) -> None:
        """Lets iterators made from now on begin at a position of the global stream.

        Args:
            position: number of images that all processes together have consumed.
        """
        if position < 0 or position % self.world_size:
            raise ValueError(
                f"position: got {position}, expected a multiple of the {self.world_size} "
                "processes, at least 0"
            )
        self._start = position

    def epoch_order(self, epoch: int) -> list[int]:
        """Gives the image indices of one epoch in their order."""
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator()
        words = np.random.SeedSequence([self.seed, epoch]).generate_state(1, dtype=np.uint64)
        generator.manual_seed(int(words[0] >> np.uint64(1)))
        order: list[int] = torch.randperm(self.size, generator=generator).tolist()
        return order

    def __iter__(self) -> Iterator[StreamKey]:
        epoch, order = -1, list[int]()
        for position in itertools.count(self._start + self.rank, self.world_size):
            if position // self.size != epoch:
                epoch = position // self.size
                order = self.epoch_order(epoch)
            yield position, order[position % self.size]


class TrainingBatchSampler(Sampler[list[StreamKey]]):
    """Gives the endless batches of this process, optionally of wide or of tall images only.

    Args:
        sampler: the stream of this process.
        batch_size: images per batch and process.
        is_wide: per image whether it is wider than high; None for batches in stream order.
            With grouping, an image waits until its batch is full.
    """

    def __init__(
        self,
        sampler: ResumableTrainingSampler,
        batch_size: int,
        is_wide: Sequence[bool] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
        self.sampler = sampler
        self.batch_size = batch_size
        self.is_wide = is_wide
        self._start = 0

    def set_start_batch(self, batch: int) -> None:
        """Lets iterators made from now on begin at this batch (0: the first of the run)."""
        if batch < 0:
            raise ValueError(f"batch: got {batch}, expected at least 0")
        self._start = batch

    def __iter__(self) -> Iterator[list[StreamKey]]:
        if self.is_wide is None:
            self.sampler.set_start(self._start * self.batch_size * self.sampler.world_size)
            stream = iter(self.sampler)
            while True:
                yield list(itertools.islice(stream, self.batch_size))
        # What waits in the groups depends on the whole past, so the past is replayed: indices only.
        yield from itertools.islice(self._grouped(self.is_wide), self._start, None)

    def _grouped(self, is_wide: Sequence[bool]) -> Iterator[list[StreamKey]]:
        groups: tuple[list[StreamKey], list[StreamKey]] = ([], [])
        self.sampler.set_start(0)
        for key in self.sampler:
            group = groups[int(is_wide[key[1]])]
            group.append(key)
            if len(group) == self.batch_size:
                yield list(group)
                group.clear()
