"""What a detector did with the tokens of each image, beside its detections.

Role in the flow: between detector and evaluators. A detector gives detections only; wrapped in
:class:`WithTokenUse` it also gives, per image, what token selection kept and where the decoder
looked. Nothing of it is computed or kept unless it is wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..decoder_attention_map import attention_received
from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, ImageBatch, Size

TOKEN_USE = "token_use"
"""Key of a detector's output dict that holds the :class:`TokenUse` of the image."""


@dataclass(frozen=True)
class TokenUse:
    """The tokens of one image, without padding, on the CPU.

    Token order is that of the network: level 0 first, row by row within a level.

    Attributes:
        level_sizes: L pairs (rows, columns) of cells that the image covers.
        kept: (E, N) bool of each encoder layer, or (1, N) where all layers keep the same tokens;
            None if every layer updates every token. Padded tokens that the released behaviour may
            keep are not in it.
        attention: (N,) attention weight that each token received from the decoder (DAM).
        image_size: (height, width) of the network's input, pixels.
        original_size: (height, width) of the original image, pixels.
    """

    level_sizes: tuple[Size, ...]
    kept: Tensor | None
    attention: Tensor
    image_size: Size
    original_size: Size

    @property
    def kept_by_any(self) -> Tensor | None:
        """(N,) bool, True on tokens that at least one encoder layer updates."""
        return None if self.kept is None else self.kept.any(0)


class WithTokenUse:
    """A detector whose output dicts also hold ``token_use``.

    Not a module: it has no weights, and the detector's mode stays the detector's.

    Args:
        model: The detector, optimised or not, in evaluation mode whenever this is called.
    """

    def __init__(self, model: TransformerDetector) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(
        self, batched_inputs: Sequence[dict[str, Any]], keep_ratio: Any = None
    ) -> list[dict[str, Any]]:
        """Detections and token use of each image.

        Args:
            batched_inputs: Detectron2's dicts; see :meth:`TransformerDetector.forward`.
            keep_ratio: Of this call instead of the model's own.

        Returns:
            One dict per image with ``instances``, equal to what the model detects, and
            ``token_use``.

        Raises:
            ValueError: The model is in training mode.
        """
        model = self.model
        if model.training:
            raise ValueError(
                "model is in training mode, expected evaluation mode; call model.eval()"
            )
        images = model.preprocess(batched_inputs)
        output = model.detect(model.extract_tokens(images), keep_ratio, with_sampling=True)
        instances = model.postprocess(output.decoder.predictions[-1], images.original_sizes)
        uses = token_uses(output, images, half_cell_shift(model))
        return [
            {"instances": found, TOKEN_USE: use} for found, use in zip(instances, uses, strict=True)
        ]


def half_cell_shift(model: TransformerDetector) -> bool:
    """Convention of the attention map that the model's token scoring is trained with.

    Args:
        model: The detector; without a token scoring loss, the released convention.
    """
    loss = getattr(model.criterion, "token_scoring", None)
    return bool(getattr(loss, "half_cell_shift", True))


def token_uses(output: DetectorOutput, images: ImageBatch, half_cell_shift: bool) -> list[TokenUse]:
    """Gives the token use of each image of a batch.

    Args:
        output: Of a forward pass ``with_sampling=True``.
        images: The batch.
        half_cell_shift: See :func:`sparse_detr.decoder_attention_map.decoder_attention_map`.
    """
    tokens, selection = output.tokens, output.selection
    attention = attention_received(output, half_cell_shift).cpu()
    kept = None
    if selection is not None:
        num_tokens = attention.shape[1]
        kept = torch.stack([layer.membership(num_tokens) for layer in selection.layers]).cpu()
    covered, is_padded = tokens.geometry.covered, tokens.geometry.is_padded
    own = ~tokens.padding_mask.cpu() if is_padded else torch.ones_like(attention, dtype=torch.bool)
    return [
        TokenUse(
            level_sizes=covered[image],
            kept=None if kept is None else kept[:, image, own[image]],
            attention=attention[image, own[image]],
            image_size=images.image_sizes[image],
            original_size=images.original_sizes[image],
        )
        for image in range(len(attention))
    ]
