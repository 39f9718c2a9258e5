"""Which implementation of the operators runs: the compiled one (`sparse_detr._C`) or pure torch.

The compiled library is looked for once, when this module is imported. Where it is missing the
package works all the same, slower; one log line says which backend is in use and why.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

BACKENDS = ("native", "torch")
ENVIRONMENT_VARIABLE = "SPARSE_DETR_BACKEND"

_logger = logging.getLogger("sparse_detr")


@dataclass(frozen=True)
class ExtensionStatus:
    """What is known about the compiled library.

    Attributes:
        loaded: Whether `sparse_detr._C` was imported.
        with_cuda: Whether it holds the CUDA kernels.
        cuda_architectures: What those were compiled for, such as "800,900"; empty without them.
        with_openmp: Whether its CPU kernels use more than one thread.
        problem: Why it was not imported; None where it was.
    """

    loaded: bool
    with_cuda: bool
    cuda_architectures: str
    with_openmp: bool
    problem: str | None

    @property
    def device_types(self) -> tuple[str, ...]:
        """Device types that the compiled operators run on."""
        if not self.loaded:
            return ()
        # The meta device is served by the shape functions, which exist for compiled operators of
        # every kind.
        return ("cpu", "meta", "cuda") if self.with_cuda else ("cpu", "meta")


def load_extension() -> ExtensionStatus:
    """Gives the state of the compiled library after trying to import it."""
    try:
        module = importlib.import_module("sparse_detr._C")
    except ImportError as error:
        # A missing module, or one compiled against another torch (undefined symbols): both leave
        # the torch path.
        return ExtensionStatus(False, False, "", False, f"{type(error).__name__}: {error}")
    try:
        return ExtensionStatus(
            loaded=True,
            with_cuda=bool(module.WITH_CUDA),
            cuda_architectures=str(module.CUDA_ARCHITECTURES),
            with_openmp=bool(module.WITH_OPENMP),
            problem=None,
        )
    except AttributeError as error:
        problem = f"{module.__file__} is of an older version, build it again ({error})"
        return ExtensionStatus(False, False, "", False, problem)


def check_backend_name(name: str, origin: str) -> str:
    """Gives `name` back when it is a backend.

    Args:
        name: The name asked for.
        origin: Where it comes from, for the message.

    Raises:
        ValueError: If `name` is not one of `BACKENDS`.
    """
    if name not in BACKENDS:
        raise ValueError(f"{origin}: got {name!r}, expected one of {', '.join(BACKENDS)}")
    return name


def _requested_by_environment() -> str | None:
    name = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return check_backend_name(name, ENVIRONMENT_VARIABLE) if name else None


extension_status = load_extension()
_forced: str | None = _requested_by_environment()
_announced: set[str] = set()


def backend_for(device_type: str) -> str:
    """Gives the backend that serves a device type: "native" or "torch".

    Args:
        device_type: Type of the device that holds the tensors, such as "cpu".

    Raises:
        RuntimeError: If the native backend is asked for by name and does not serve this device
            type.
    """
    if _forced == "torch":
        return "torch"
    if device_type in extension_status.device_types:
        return "native"
    if _forced == "native":
        raise RuntimeError(
            f"backend 'native' was asked for on device type {device_type!r}, but "
            f"{_why_torch(device_type)}; "
            f"build the extension for it, or unset {ENVIRONMENT_VARIABLE}"
        )
    return "torch"


def _why_torch(device_type: str) -> str:
    """Gives the reason why the compiled operators do not serve a device type."""
    if extension_status.problem is not None:
        return f"the compiled operators could not be loaded ({extension_status.problem})"
    return f"the compiled operators were built without {device_type} kernels"


def describe_backend(device_type: str) -> str:
    """Gives one line that names the backend in use for a device type, and why if it is slow."""
    if backend_for(device_type) == "native":
        threads = (
            ""
            if device_type != "cpu" or extension_status.with_openmp
            else ", one thread: built without OpenMP"
        )
        return (
            f"deformable attention backend on {device_type}: native (compiled operators{threads})"
        )
    reason = "asked for by name" if _forced == "torch" else _why_torch(device_type)
    return f"deformable attention backend on {device_type}: torch (slower; {reason})"


def announce_backend(device_type: str) -> None:
    """Logs the backend in use, the first time that a device type is seen."""
    if device_type in _announced:
        return
    _announced.add(device_type)
    _logger.info(describe_backend(device_type))


def is_native(device_type: str) -> bool:
    """Whether the compiled operators serve a device type; logs the choice the first time."""
    if not torch.compiler.is_compiling():
        announce_backend(device_type)
    return backend_for(device_type) == "native"


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Forces a backend inside a `with` block, in every thread.

    Args:
        name: "native", "torch", or None for the automatic choice.

    Raises:
        ValueError: If `name` is not a backend.
    """
    global _forced
    previous = _forced
    _forced = None if name is None else check_backend_name(name, "backend")
    try:
        yield
    finally:
        _forced = previous
