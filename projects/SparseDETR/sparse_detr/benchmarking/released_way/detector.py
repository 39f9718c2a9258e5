"""The whole flow as released, with the weights of an ordinary detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...decoder import DeformableDecoder
from ...encoder import DeformableEncoder
from ...layers.boxes import inverse_sigmoid
from ...layers.sine_encoding import sine_features
from ...meta_arch import TransformerDetector
from ...preprocess import targets_of
from ...query_selection import TwoStageQueries
from ...structures import Predictions
from ...token_scoring import ScoringNetwork
from .attention import released_decoder_layer, released_encoder_layer
from .backbone import with_eager_norms
from .losses import released_loss
from .output import ReleasedOutput
from .tokens import (
    ReleasedTokens,
    released_proposals,
    released_reference_points,
    released_tokens,
)


@dataclass
class _Selected:
    """Tokens that the encoder updates."""

    indices: Tensor | None = None
    counts: Tensor | None = None
    scores: Tensor | None = None
    proposals: Tensor | None = None
    auxiliary: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class ReleasedDetector(nn.Module):
    """A detector with the released way of computing.

    Args:
        model: The ordinary detector; its weights are shared. Sparse DETR, or its dense twin with
            the same two-stage queries. Images of a batch must have one size.

    Raises:
        ValueError: A detector of another kind.

    Source: released code of Sparse DETR. Where that ranks tokens in another order by default (see
        docs/released_behaviour.md) the order is the model's, so that both give the same.
    """

    def __init__(self, model: TransformerDetector) -> None:
        super().__init__()
        queries = model.query_selection
        if not isinstance(queries, TwoStageQueries) or not queries.content_from_memory:
            raise ValueError(
                "model must be Sparse DETR or its dense twin (two-stage queries that start from "
                f"the memory), got {type(queries).__name__}"
            )
        parts = (model.token_scoring, model.encoder, model.decoder)
        kinds = (ScoringNetwork | None, DeformableEncoder, DeformableDecoder)
        for part, kind in zip(parts, kinds, strict=True):
            if not isinstance(part, kind):
                raise ValueError(f"model must be as released, got a {type(part).__name__}")
        self.model = model
        self.backbone = with_eager_norms(model.backbone)
        self.train(model.training)

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor | list[dict[str, Any]]:
        """Detections as the ordinary model gives them, or the total loss in training mode."""
        images = self.model.preprocess(batched_inputs)
        output = self.compute(torch.stack(list(images.images)))
        if self.training:
            assert self.model.criterion is not None
            targets = targets_of(batched_inputs, self.model.num_classes, output.logits)
            return released_loss(output, targets, self.model.criterion, output.spatial_shapes)
        last = Predictions(output.logits[-1], output.boxes_cxcywh[-1])
        instances = self.model.postprocess(last, images.original_sizes)
        return [{"instances": one} for one in instances]

    def compute(self, pixels: Tensor) -> ReleasedOutput:
        """Everything from normalised images (B, 3, H, W) of one size."""
        batch, _, height, width = pixels.shape
        image_mask = torch.zeros(batch, height, width, dtype=torch.bool, device=pixels.device)
        maps = self.model.feature_projection(self.backbone(pixels))
        tokens = released_tokens(maps, image_mask, self.model.position_embedding.level_embed)
        selected = self._select(tokens)
        memory, encoder_sampling = self._encode(tokens, selected)
        first_stage, indices, reference, is_proposal = self._first_stage(memory, tokens)
        logits, boxes, decoder_sampling = self._decode(memory, tokens, indices, reference)
        counts = () if selected.counts is None else tuple(selected.counts.tolist())
        return ReleasedOutput(
            logits,
            boxes,
            first_stage,
            selected.auxiliary,
            is_proposal,
            selected.scores,
            selected.indices,
            counts,
            encoder_sampling,
            decoder_sampling,
            tokens.spatial_shapes,
        )

    def _project(self, features: Tensor, tokens: ReleasedTokens) -> tuple[Tensor, Tensor, Tensor]:
        """Projected features, proposals' logits, and which tokens are proposals (B, N)."""
        proposals, inside = released_proposals(tokens)
        features = features.masked_fill(tokens.padding_mask[..., None], 0.0)
        features = features.masked_fill(~inside, 0.0)
        projection = self.model.proposal_projection
        assert projection is not None
        return projection.norm(projection.projection(features)), proposals, inside[..., 0]

    def _select(self, tokens: ReleasedTokens) -> _Selected:
        scoring, rule = self.model.token_scoring, self.model.token_selection
        if not isinstance(scoring, ScoringNetwork) or rule is None:
            return _Selected()
        ratio = self.model.keep_ratio
        if not isinstance(ratio, float):
            raise ValueError(f"the released way keeps one share of the tokens, got {ratio!s}")
        projected, proposals, inside = self._project(tokens.features + tokens.position, tokens)
        local, shared = scoring.embed(projected).chunk(2, dim=-1)
        mean = shared.mean(dim=1, keepdim=True).expand(-1, local.shape[1], -1)
        scores = scoring.score(torch.cat([local, mean], dim=-1)).squeeze(-1)
        scores = scores.masked_fill(tokens.padding_mask, float(scores.detach().min()))
        counts = ((~tokens.padding_mask).sum(-1) * ratio).int() + 1
        ranked = scores
        if not rule.edge_tokens_compete:
            ranked = scores.masked_fill(~inside, float("-inf"))
        number = min(int(counts.max()), scores.shape[1])
        return _Selected(torch.topk(ranked, number, dim=1).indices, counts, scores, proposals)

    def _encode(
        self, tokens: ReleasedTokens, selected: _Selected
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Memory (B, N, C) and the stacked sampling; fills in the auxiliary predictions."""
        memory, position = tokens.features, tokens.position
        references = released_reference_points(tokens)
        indices = selected.indices
        rows = memory
        heads = self.model.heads
        supervised = heads.num_encoder_heads if indices is not None else 0
        if indices is not None:
            assert selected.proposals is not None
            proposals = _gather(selected.proposals, indices)
            references = _gather(references.flatten(2), indices).view(*indices.shape, -1, 2)
            rows, position = _gather(memory, indices), _gather(position, indices)
        locations, weights = [], []
        for number, layer in enumerate(self.model.encoder.layers):
            rows, location, weight = released_encoder_layer(
                layer,  # type: ignore[arg-type]
                rows,
                position,
                references,
                memory,
                tokens.spatial_shapes,
                tokens.padding_mask,
            )
            locations.append(location)
            weights.append(weight)
            memory = rows if indices is None else _scattered(memory, rows, selected)
            if number < supervised:
                head = heads.encoder(number)
                boxes = (proposals + head.bbox_embed(rows)).sigmoid()
                selected.auxiliary.append((head.class_embed(rows), boxes))
        return memory, (torch.stack(locations, 1), torch.stack(weights, 1))

    def _first_stage(
        self, memory: Tensor, tokens: ReleasedTokens
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """Predictions of all tokens, the tokens that become queries, their boxes' logits."""
        queries = self.model.query_selection
        assert isinstance(queries, TwoStageQueries)
        projected, proposals, inside = self._project(memory, tokens)
        head = self.model.heads.first_stage()
        logits = head.class_embed(projected)
        box_logits = proposals + head.bbox_embed(projected)
        best = logits.topk(1, dim=2).values[..., 0] if queries.class_specific else logits[..., 0]
        if not queries.any_token_competes:
            best = best.masked_fill(~inside, float("-inf"))
        indices = torch.topk(best, min(queries.num_queries, best.shape[1]), dim=1).indices
        reference = _gather(box_logits, indices).detach()
        return (logits, box_logits.sigmoid()), indices, reference, inside

    def _decode(
        self, memory: Tensor, tokens: ReleasedTokens, indices: Tensor, reference_logits: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Logits and boxes of all layers (D, B, Q, ...), and the stacked sampling."""
        queries, heads = self.model.query_selection, self.model.heads
        assert isinstance(queries, TwoStageQueries)
        reference = reference_logits.sigmoid()
        features = queries.position_projection.in_features // 4
        sine = sine_features(reference * (2 * math.pi), features).flatten(2)
        position = queries.position_norm(queries.position_projection(sine))
        content = _gather(memory, indices)
        scale = torch.cat([tokens.valid_ratios, tokens.valid_ratios], -1)[:, None]
        references, contents, locations, weights = [reference], [], [], []
        for number, layer in enumerate(self.model.decoder.layers):
            content, location, weight = released_decoder_layer(
                layer,  # type: ignore[arg-type]
                content,
                position,
                reference[:, :, None] * scale,
                memory,
                tokens.spatial_shapes,
                tokens.padding_mask,
            )
            offsets = heads.decoder(number).bbox_embed(content)
            reference = (offsets + inverse_sigmoid(reference)).sigmoid().detach()
            references.append(reference)
            contents.append(content)
            locations.append(location)
            weights.append(weight)
        logits, boxes = [], []
        # The released code stacks the layers' outputs and runs the heads on them afterwards.
        for number, content in enumerate(torch.stack(contents)):
            head = heads.decoder(number)
            logits.append(head.class_embed(content))
            offsets = head.bbox_embed(content)
            boxes.append((offsets + inverse_sigmoid(references[number])).sigmoid())
        sampling = (torch.stack(locations, 1), torch.stack(weights, 1))
        return torch.stack(logits), torch.stack(boxes), sampling


def _gather(rows: Tensor, indices: Tensor) -> Tensor:
    """(B, K, ...) rows of (B, N, C), with the index written out for each channel."""
    return torch.gather(rows, 1, indices[..., None].repeat(1, 1, rows.shape[-1]))


def _scattered(memory: Tensor, rows: Tensor, selected: _Selected) -> Tensor:
    """Memory with the kept rows replaced, image by image, each time a new tensor."""
    assert selected.indices is not None and selected.counts is not None
    images = []
    for image, count in enumerate(selected.counts):
        index = selected.indices[image][:count, None].repeat(1, rows.shape[-1])
        images.append(memory[image].scatter(0, index, rows[image][:count]))
    return torch.stack(images)
