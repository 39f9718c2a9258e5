"""How much memory a call needs at its peak, beyond what was there before.

Meaningful only in a fresh process (see `fresh_process`): memory that earlier work left with the
allocator would be used again and not be seen.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from .timing import Call

# Environment of a process in which freed tensors go back to the system at once, so that its peak is
# that of what is alive. By default the C library keeps freed memory in pieces that may not fit what
# comes next; how much depends on the order of sizes more than on the work.
LIVE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_TRIM_THRESHOLD_": str(2**16)}

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
# Asks the kernel to set the high-water mark of the process to what it holds now.
_RESET_PEAK = "5"


class PeakMemoryUnknownError(RuntimeError):
    """This system does not tell the peak memory of a process."""


def parse_status_bytes(status: str, key: str) -> int:
    """Gives a size from the text of /proc/self/status.

    Args:
        status: The text.
        key: "VmHWM" (peak) or "VmRSS" (now).

    Raises:
        PeakMemoryUnknownError: The key is not there.
    """
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return 1024 * int(rest.split()[0])
    raise PeakMemoryUnknownError(f"/proc/self/status has no {key}")


def peak_bytes(call: Call, device: torch.device) -> int:
    """Gives the most bytes that a call held at once, beyond those held before.

    What the call gives is alive until the end, so it is part of the peak.

    Args:
        call: What to measure; called once.
        device: Where its tensors are.

    Raises:
        PeakMemoryUnknownError: On a CPU, where the system does not tell (only Linux does).
    """
    gc.collect()
    return _cuda_peak(call, device) if device.type == "cuda" else _process_peak(call)


def _cuda_peak(call: Call, device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    del result
    return peak - before


def _process_peak(call: Call) -> int:
    if not _STATUS.is_file():
        raise PeakMemoryUnknownError("peak memory on a CPU is measured through /proc (Linux only)")
    _give_back_free_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError as error:
        raise PeakMemoryUnknownError(f"the peak memory cannot be set back: {error}") from error
    before = parse_status_bytes(_STATUS.read_text(), "VmRSS")
    result = call()
    peak = parse_status_bytes(_STATUS.read_text(), "VmHWM")
    del result
    return max(0, peak - before)


def _give_back_free_memory() -> None:
    """Has the C library return memory that it holds for later, where it knows how."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Gives the bytes of the elements of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
