"""The detector that an optimisation gives: it predicts, and refuses what it can no longer do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...meta_arch import TransformerDetector
from ...meta_arch.detector_structure import structure_of
from ...structures import DetectorOutput, FeatureTokens, ImageBatch
from ...token_selection import KeepRatioLike


class OptimizedDetector(TransformerDetector):
    """A detector whose weights have been rearranged for inference.

    It is used like the one that it was made from, ``keep_ratio``, evaluation and
    :func:`sparse_detr.inference.inspect_image` included, takes no gradients, and stays in
    evaluation mode. Its weights no longer have the names and values of a checkpoint: training,
    loading, saving, copying and moving are refused. Made by :meth:`copy_of`.

    Attributes:
        structure: The detector that this one was made from, without its weights; for counting and
            for the latency calibration.
        optimization: How it was optimised, in words.
    """

    structure: TransformerDetector
    optimization: str

    @classmethod
    def copy_of(cls, model: TransformerDetector) -> OptimizedDetector:
        """Gives a copy that shares no memory with ``model``; nothing is rearranged yet.

        Args:
            model: In evaluation mode.
        """
        # Not built anew: the parts exist already, and only they know their arguments.
        optimized = cls.__new__(cls)
        optimized.__dict__.update(copy.deepcopy(model).__dict__)
        # Not a part, so not set as one.
        optimized.__dict__["structure"] = structure_of(model)
        return optimized.requires_grad_(False)

    @torch.no_grad()
    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], keep_ratio: KeepRatioLike | None = None
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Detections; see :meth:`TransformerDetector.forward`."""
        return super().forward(batched_inputs, keep_ratio)

    @torch.no_grad()
    def extract_tokens(self, images: ImageBatch) -> FeatureTokens:
        """Tokens of a batch; see :meth:`TransformerDetector.extract_tokens`."""
        return super().extract_tokens(images)

    @torch.no_grad()
    def detect(self, *args: Any, **kwargs: Any) -> DetectorOutput:
        """Everything from the tokens on; see :meth:`TransformerDetector.detect`."""
        return super().detect(*args, **kwargs)

    def train(self, mode: bool = True) -> OptimizedDetector:
        """Refuses training mode.

        Raises:
            RuntimeError: ``mode`` is True.
        """
        if mode:
            raise RuntimeError(
                "an optimised detector cannot be trained; train the detector that it was made from"
            )
        super().train(False)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> OptimizedDetector:
        """Refuses to move (``to``, ``cuda``, ``double`` and so on); staying is fine.

        Raises:
            RuntimeError: The weights would change their device or type.
        """
        weight = self.position_embedding.level_embed
        moved = fn(weight.detach().flatten()[:1])
        if (moved.device, moved.dtype) != (weight.device, weight.dtype):
            raise RuntimeError(
                f"an optimised detector stays on {weight.device} in {weight.dtype}, asked for "
                f"{moved.device} and {moved.dtype}; move the detector that it was made from and "
                "optimise again"
            )
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses to give weights that no other detector could load.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "an optimised detector has no state_dict: its weights are folded and rearranged; save "
            "the detector that it was made from"
        )

    def load_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses weights.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "an optimised detector cannot load weights; load them into an ordinary one and "
            "optimise that"
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise RuntimeError(
            "an optimised detector cannot be pickled or copied; do so with the detector that it "
            "was made from and optimise again"
        )
