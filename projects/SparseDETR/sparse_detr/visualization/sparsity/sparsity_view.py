"""What the sparsity of a detector came to on one image, as arrays.

Role in the flow: `inspect_image` -> **sparsity view** -> panels and page, which draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.structures import Instances

from ...decoder_attention_map import attention_received, binarised_target, correlations
from ...evaluation.token_use import half_cell_shift
from ...inference import InspectedImage, inspect_image
from ...meta_arch import TransformerDetector
from ...query_selection.encoder_proposals import proposal_grid
from ...structures import FeatureTokens, Size, TokenSelection
from ...token_scoring import ForegroundScoring, ScoringNetwork
from ...token_selection import KeepRatioLike, as_keep_ratio
from ..cells import Mask
from ..kept_tokens import num_pooled
from ..network_input import network_input, truth_boxes
from ..panels import Picture
from .chosen_queries import ChosenQuery, QueryChoice, queries_of

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class TokenLevel:
    """One level of the tokens of an image.

    Attributes:
        stride: Nominal pixels per cell.
        shape: (rows, columns) of the padded map.
        covered: (rows, columns) that the image covers, at the top left.
        start: Index of its first token.
    """

    stride: int
    shape: Size
    covered: Size
    start: int

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return self.covered[0] * self.covered[1]

    def cells(self, values: Values) -> Values:
        """(rows, columns) of the level from (N,) of all tokens."""
        return values[self.start : self.start + self.shape[0] * self.shape[1]].reshape(self.shape)


@dataclass(frozen=True)
class ShownBoxes:
    """Boxes to draw, in pixels of the network's input.

    Attributes:
        boxes_xyxy: (n, 4).
        classes: (n,) class ids.
        scores: (n,) in (0, 1), or None for ground truth.
        queries: (n,) the query that each comes from, or None for ground truth.
    """

    boxes_xyxy: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    scores: Floats | None = None
    queries: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class SparsityView:
    """Which tokens of an image were kept, how they scored, and where the decoder looked.

    Attributes:
        name: Of the image.
        image: The network's input, RGB, without padding.
        padded_size: (height, width) of the input with padding.
        original_size: (height, width) of the image file.
        levels: The L levels, finest first.
        keep_ratio: What the run was asked to keep, as text; None where no token is selected.
        kept: (N,) kept tokens of each encoder layer, or one entry that all layers share.
        scores: (N,) logits of the tokens, -inf on padding; None where none are scored.
        counted: (N,) tokens whose score says something; the outermost ring of a fine level is
            ranked last instead, and padding not at all. None where none are scored.
        ranking: (n,) tokens in the order in which a growing keeping ratio takes them in; None
            where none are scored.
        attention: (N,) decoder attention map (DAM), zero on padding.
        target: (N,) the tokens that the decoder looked at most, as many as any layer keeps.
        corr: Share of the attention that falls on tokens that any layer keeps.
        corr_of_levels: The same within each level; NaN where a level received nothing.
        detections: All detections, best first.
        truth: Ground truth, or None where it is not known.
        queries: The queries whose sampling is shown.
        other_queries: Those whose sampling is known besides.
        score_name: What the scores are called.
        learns_attention: Whether the scoring network is trained to find the target.
        pooling: (M, N) what each row is made of that the other tokens are pooled into; None where
            tokens that are not kept are passed on.
        dense_attention: Whether queries attend to all tokens rather than sample some.
    """

    name: str
    image: Picture
    padded_size: Size
    original_size: Size
    levels: tuple[TokenLevel, ...]
    keep_ratio: str | None
    kept: tuple[Mask, ...]
    scores: Floats | None
    counted: Mask | None
    ranking: npt.NDArray[np.int64] | None
    attention: Floats
    target: Mask
    corr: float
    corr_of_levels: tuple[float, ...]
    detections: ShownBoxes
    truth: ShownBoxes | None
    queries: tuple[ChosenQuery, ...]
    other_queries: tuple[ChosenQuery, ...] = ()
    score_name: str = "token scores"
    learns_attention: bool = True
    pooling: Floats | None = None
    dense_attention: bool = False

    @property
    def image_size(self) -> Size:
        """(height, width) of the network's input without padding."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    @property
    def kept_word(self) -> str:
        """What kept tokens are called: ``"polled"`` where the others are pooled."""
        return "kept" if self.pooling is None else "polled"

    @property
    def num_tokens(self) -> int:
        """Tokens of all levels that are not padding."""
        return sum(level.num_tokens for level in self.levels)

    @property
    def kept_by_any(self) -> Mask:
        """(N,) tokens that at least one encoder layer updates."""
        union: Mask = np.logical_or.reduce(self.kept)
        return union


@torch.no_grad()
def view_sparsity(
    model: TransformerDetector,
    sample: dict[str, Any],
    name: str,
    queries: Sequence[QueryChoice],
    truth: Instances | None = None,
    keep_ratio: KeepRatioLike | None = None,
    others: Sequence[QueryChoice] = (),
) -> SparsityView:
    """Gives the sparsity of one image.

    Args:
        model: The detector, in evaluation mode; one without token selection gives DAM and queries.
        sample: Detectron2's input dict, as the test loader's mapper gives it.
        name: Of the image.
        queries: Whose sampling to show.
        truth: ``gt_boxes`` and ``gt_classes`` in pixels of the original image.
        keep_ratio: Keeping ratio of this call; None takes the model's own.
        others: Whose sampling to keep besides, for a page where a person chooses.

    Raises:
        ValueError: The model is in training mode, or an argument does not fit it.
    """
    inspected = inspect_image(model, sample, keep_ratio, with_sampling=True, all_layers=True)
    output, tokens = inspected.output, inspected.output.tokens
    attention = attention_received(output, half_cell_shift(model))
    attention = attention.masked_fill(tokens.padding_mask, 0)
    kept = _kept_masks(output.selection, tokens)
    union = torch.stack(kept).any(0)
    target = binarised_target(attention, tokens.padding_mask, [int(union.sum())])
    corr, corr_of_levels = correlations(attention, union[None], tokens.spatial_shapes)
    ratio = model.keep_ratio if keep_ratio is None else keep_ratio
    ratio = None if output.selection is None else ratio
    detections = _detections(model, inspected)
    assert detections.queries is not None
    detected = detections.queries.tolist()
    chosen = queries_of(inspected, detected, queries)
    known = {query.index for query in chosen}
    scored = _Scored.of(model, output.selection, tokens)
    original = (int(inspected.instances.image_size[0]), int(inspected.instances.image_size[1]))
    return SparsityView(
        name=name,
        image=network_input(sample, model.input_format),
        padded_size=inspected.padded_size,
        original_size=original,
        levels=_levels(inspected),
        keep_ratio=None if ratio is None else str(as_keep_ratio(ratio)),
        kept=tuple(layer.cpu().numpy() for layer in kept),
        scores=scored.scores,
        counted=scored.counted,
        ranking=scored.ranking,
        attention=attention[0].float().cpu().numpy(),
        target=target[0].bool().cpu().numpy(),
        corr=float(corr[0]),
        corr_of_levels=tuple(corr_of_levels[:, 0].tolist()),
        detections=detections,
        truth=_truth(truth, inspected.image_size),
        queries=chosen,
        other_queries=tuple(
            q for q in queries_of(inspected, detected, others) if q.index not in known
        ),
        score_name=scored.name,
        learns_attention=isinstance(model.token_scoring, ScoringNetwork),
        pooling=_pooling(output.selection),
        dense_attention=bool(output.decoder.attention_maps),
    )


def _detections(model: TransformerDetector, inspected: InspectedImage) -> ShownBoxes:
    """All detections, best first, with the query of each."""
    predictions = inspected.output.decoder.predictions[-1]
    (found,) = model.postprocess.select(predictions, [inspected.image_size])
    return ShownBoxes(
        found.boxes_xyxy.double().cpu().numpy(),
        found.classes.cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.queries.cpu().numpy(),
    )


def _truth(truth: Instances | None, image_size: Size) -> ShownBoxes | None:
    """Ground truth in pixels of the network's input, or None where it is not known."""
    if truth is None:
        return None
    return ShownBoxes(truth_boxes(truth, image_size), truth.gt_classes.numpy())


def _pooling(selection: TokenSelection | None) -> Floats | None:
    """(M, N) what each pooled row of the only image is made of; None where none is pooled."""
    if selection is None or selection.sequence is None:
        return None
    features = selection.sequence.features
    # A row that alone receives one hands it on to the tokens that it was made of.
    alone = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    pooled = alone[None, len(alone) - num_pooled(selection) :]
    found: Floats = selection.sequence.spread(pooled)[0].float().cpu().numpy()
    return found


def _kept_masks(
    selection: TokenSelection | None, tokens: FeatureTokens
) -> tuple[torch.Tensor, ...]:
    """(N,) bool of each encoder layer; all tokens of the image where none are selected."""
    own = ~tokens.padding_mask[0]
    if selection is None:
        return (own,)
    return tuple(layer.membership(len(own))[0] & own for layer in selection.layers)


@dataclass(frozen=True)
class _Scored:
    """Scores, which of them count, and the order of the tokens; see :class:`SparsityView`."""

    scores: Floats | None = None
    counted: Mask | None = None
    ranking: npt.NDArray[np.int64] | None = None
    name: str = "token scores"

    @staticmethod
    def of(
        model: TransformerDetector, selection: TokenSelection | None, tokens: FeatureTokens
    ) -> _Scored:
        """Of the only image of a batch."""
        rule = model.token_selection
        if selection is None or selection.token_scores is None or rule is None:
            return _Scored()
        grid = proposal_grid(tokens)
        # Every token kept: the order in which the rule prefers them.
        everything = rule(selection.token_scores, tokens, grid, keep_ratio=1.0)
        order, own = everything.layers[0].kept_indices[0], ~tokens.padding_mask[0]
        counted = own if rule.edge_tokens_compete else own & grid.is_proposal[0]
        return _Scored(
            selection.token_scores[0].float().cpu().numpy(),
            counted.cpu().numpy(),
            order[own[order]].cpu().numpy(),
            "foreground scores"
            if isinstance(model.token_scoring, ForegroundScoring)
            else "token scores",
        )


def _levels(inspected: InspectedImage) -> tuple[TokenLevel, ...]:
    tokens = inspected.output.tokens
    return tuple(
        TokenLevel(stride, shape, covered, start)
        for stride, shape, covered, start in zip(
            inspected.strides,
            tokens.spatial_shapes,
            tokens.geometry.covered[0],
            tokens.level_start_index,
            strict=True,
        )
    )
