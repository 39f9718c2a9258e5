"""Sparse DETR and its relatives for Detectron2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference import Predictor

__version__ = "0.6.1"
__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """Gives what takes torch and Detectron2 to import, when it is first asked for."""
    if name == "Predictor":
        from .inference import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
