"""Backbone passes recorded as CUDA graphs, one per size of the images.

A graph replays its kernels without a call from Python for each of them. It serves one size of
input, so this pays where images come in few sizes. Role in the flow: in place of the backbone's
call inside :class:`WrappedBackbone`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_WARM_UP_RUNS = 3


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    images: Tensor
    maps: dict[str, Tensor]


class RecordedBackbone:
    """Runs a backbone through recorded CUDA graphs; on the CPU it just runs it.

    Not for several threads at once: a graph has one input.

    Args:
        run: Images to maps by name; without synchronisation and without random numbers.
        max_sizes: Sizes whose graphs are kept; beyond, the one used longest ago goes. Each holds
            the memory of its activations.
    """

    def __init__(self, run: Callable[[Tensor], dict[str, Tensor]], max_sizes: int = 8) -> None:
        if max_sizes < 1:
            raise ValueError(f"max_sizes must be at least 1, got {max_sizes}")
        self.run = run
        self.max_sizes = max_sizes
        self._recordings: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name, which later calls leave alone.

        Args:
            images: (B, 3, H, W).
        """
        if images.device.type != "cuda":
            return self.run(images)
        key = (images.device, images.dtype, tuple(images.shape), images.stride())
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._record(images)
            self._recordings[key] = recording
            if len(self._recordings) > self.max_sizes:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        recording.images.copy_(images)
        recording.graph.replay()
        # Copies: the next replay writes over the graph's own outputs.
        return {name: m.clone() for name, m in recording.maps.items()}

    def _record(self, images: Tensor) -> _Recording:
        with torch.cuda.device(images.device):
            own = images.clone()  # keeps the layout
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_RUNS):
                    self.run(own)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                maps = self.run(own)
        return _Recording(graph, own, maps)
