"""The meta-architecture: the whole flow of a detection transformer, and nothing but the flow.

    images -> preprocess -> backbone -> feature projection -> FeatureTokens -> token scoring
           -> token selection -> encoder -> query selection -> decoder -> heads
           -> criterion (training) | postprocess (inference)

Each arrow is one attribute of :class:`TransformerDetector` and one module of the package; what
travels along it is a dataclass of :mod:`sparse_detr.structures`. Shape letters: see the glossary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..criterion import SetCriterion
from ..decoder import Decoder
from ..encoder import Encoder, auxiliary_predictions
from ..feature_projection import MultiScaleProjection, PositionEmbedding
from ..heads import DetectionHeads
from ..postprocess import Postprocess
from ..preprocess import PixelStatistics, normalised_batch, targets_of
from ..query_selection import FirstStageQueries, LearnedQueries, ProposalProjection, Proposals
from ..structures import (
    DetectorOutput,
    FeatureMaps,
    FeatureTokens,
    ImageBatch,
    PaddedImages,
    Targets,
    TokenSelection,
)
from ..token_scoring import TokenScoring
from ..token_selection import KeepRatio, KeepRatioLike, TokenSelector, Uniform
from .event_log import log_scalars
from .part_checks import check_parts, checked_ratio, level_strides


class TransformerDetector(nn.Module):
    """A detection transformer made of exchangeable parts.

    Args:
        backbone: Detectron2 backbone.
        feature_projection: Maps of the backbone -> L maps of C channels.
        position_embedding: Maps -> tokens with position.
        token_scoring: The criterion that tokens are selected by, or None for a dense encoder.
        token_selection: Rule that keeps tokens by score; only with token scoring.
        encoder: Encoder.
        proposal_projection: Projection that token scores and first-stage scores are read from,
            shared by both on purpose; None where nothing reads it.
        query_selection: Where the decoder's queries come from.
        decoder: Decoder.
        heads: Detection heads of all stages.
        criterion: Loss, or None for a model that only predicts.
        postprocess: Final predictions -> Instances.
        num_classes: Classes, contiguous ids from 0.
        hidden_dim: Channels C of all parts.
        num_levels: Levels L of all parts.
        keep_ratio: Share rho of the tokens that the encoder updates, in (0, 1], or another form
            that :func:`sparse_detr.token_selection.as_keep_ratio` takes; None for a dense encoder.
            Can be set at any time, and given per call.
        pixel_mean: Mean colour, 0..255, in the channel order of ``input_format``.
        pixel_std: Standard deviation of the colour.
        input_format: Channel order of the images, for tools that read files.
        released_behaviour: The preset that the config's switches follow; a label here.
        pad_before_backbone: False gives each image size a backbone pass of its own, so that a
            result never depends on the batch (batch norms that train see those groups). True is
            the released behaviour: one padded batch.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        feature_projection: MultiScaleProjection,
        position_embedding: PositionEmbedding,
        encoder: Encoder,
        query_selection: LearnedQueries | FirstStageQueries,
        decoder: Decoder,
        heads: DetectionHeads,
        postprocess: Postprocess,
        num_classes: int,
        hidden_dim: int,
        num_levels: int,
        criterion: SetCriterion | None = None,
        token_scoring: TokenScoring | None = None,
        token_selection: TokenSelector | None = None,
        proposal_projection: ProposalProjection | None = None,
        keep_ratio: KeepRatioLike | None = None,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        input_format: str = "RGB",
        released_behaviour: bool = False,
        pad_before_backbone: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_projection = feature_projection
        self.position_embedding = position_embedding
        self.token_scoring = token_scoring
        self.token_selection = token_selection
        self.encoder = encoder
        self.proposal_projection = proposal_projection
        self.query_selection = query_selection
        self.decoder = decoder
        self.heads = heads
        self.criterion = criterion
        self.postprocess = postprocess
        self.num_classes = num_classes
        self.input_format = input_format
        self.released_behaviour = released_behaviour
        self.pad_before_backbone = pad_before_backbone
        self.pixel_statistics = PixelStatistics(pixel_mean, pixel_std)
        check_parts(self, hidden_dim, num_levels)
        self.strides = level_strides(backbone, feature_projection)
        self.keep_ratio = keep_ratio

    @property
    def keep_ratio(self) -> float | KeepRatio | None:
        """What was set: a share rho, or a rule that says more; None where all are updated."""
        ratio = self._keep_ratio
        return ratio.ratio if isinstance(ratio, Uniform) else ratio

    @keep_ratio.setter
    def keep_ratio(self, value: KeepRatioLike | None) -> None:
        self._keep_ratio = checked_ratio(self, value)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.position_embedding.level_embed.device

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]], keep_ratio: KeepRatioLike | None = None
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Weighted losses (training) or detections (inference).

        Args:
            batched_inputs: Detectron2's dicts: ``image`` (3, height, width) in 0..255, optionally
                ``height``, ``width``, ``image_id``, ``file_name``; ``instances`` to train.
            keep_ratio: Of this call instead of the model's own.

        Returns:
            Training: scalars by name, whose sum is the loss. Inference: one dict per image with
            ``instances`` (pred_boxes xyxy in pixels of the original image, scores, pred_classes).
        """
        images = self.preprocess(batched_inputs)
        if self.training:
            return self._losses(images, batched_inputs, keep_ratio)
        output = self.detect(self.extract_tokens(images), keep_ratio)
        instances = self.postprocess(output.decoder.predictions[-1], images.original_sizes)
        return [{"instances": i} for i in instances]

    def preprocess(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageBatch:
        """Normalised images on the model's device."""
        statistics = self.pixel_statistics.like(self.position_embedding.level_embed)
        return normalised_batch(batched_inputs, *statistics)

    def padded_groups(self, images: ImageBatch) -> list[PaddedImages]:
        """The images as the backbone sees them."""
        divisibility = int(getattr(self.backbone, "size_divisibility", 0))
        return list(images.groups(self.pad_before_backbone, divisibility))

    def extract_tokens(self, images: ImageBatch) -> FeatureTokens:
        """Tokens of a batch: backbone, projection and position."""
        return self.tokens_of(self.padded_groups(images))

    def tokens_of(self, groups: Sequence[PaddedImages]) -> FeatureTokens:
        """Tokens of the images of :meth:`padded_groups`; see :meth:`extract_tokens`."""
        parts = [
            FeatureMaps.of_padded_images(
                self.feature_projection(self.backbone(group.pixels)),
                group.image_sizes,
                (group.pixels.shape[-2], group.pixels.shape[-1]),
                self.strides,
                self.feature_projection.derived_levels,
            )
            for group in groups
        ]
        merged = FeatureMaps.merge(parts, [group.positions for group in groups])
        return cast(FeatureTokens, self.position_embedding(merged))

    def detect(
        self,
        tokens: FeatureTokens,
        keep_ratio: KeepRatioLike | None = None,
        supervise: bool = False,
        with_sampling: bool = False,
        targets: Sequence[Targets] | None = None,
    ) -> DetectorOutput:
        """Everything from the tokens on.

        Args:
            tokens: The tokens of the batch.
            keep_ratio: Keeping ratio of this call instead of the model's own.
            supervise: Also predict in every stage that has a loss. Without it nothing is computed
                that the final detections do not need.
            with_sampling: Keep where the decoder's cross-attention read (for DAM and pictures).
            targets: Objects of the images, in training only: for denoising queries.
        """
        ratio = self._keep_ratio if keep_ratio is None else checked_ratio(self, keep_ratio)
        scored = self.token_scoring is not None and self.token_scoring.reads_projection
        proposals = Proposals.of(tokens, self.proposal_projection, scored)
        selection = self._select_tokens(tokens, proposals, ratio, supervise)
        num_auxiliary = self.heads.num_encoder_heads if supervise else 0
        encoded = self.encoder(tokens, selection, num_auxiliary, self.heads)
        auxiliary = auxiliary_predictions(encoded, selection, proposals, self.heads)
        queries = self.query_selection(encoded, tokens, proposals, self.heads, supervise, targets)
        read = encoded.tokens_read(tokens)
        decoded = self.decoder(queries, encoded.memory, read, self.heads, supervise, with_sampling)
        return DetectorOutput(tokens, selection, auxiliary, queries, decoded)

    def _select_tokens(
        self,
        tokens: FeatureTokens,
        proposals: Proposals,
        keep_ratio: KeepRatio | None,
        supervise: bool,
    ) -> TokenSelection | None:
        if self.token_scoring is None or self.token_selection is None:
            return None
        assert keep_ratio is not None
        scores = self.token_scoring(proposals, tokens, supervise)
        ratio = keep_ratio.resolved(self, tokens)
        selection = self.token_selection(scores.logits, tokens, proposals.grid, ratio)
        return replace(selection, predictions=scores.predictions)

    def _losses(
        self,
        images: ImageBatch,
        batched_inputs: Sequence[dict[str, Any]],
        keep_ratio: KeepRatioLike | None,
    ) -> dict[str, Tensor]:
        if self.criterion is None:
            raise ValueError("criterion must be given to train, got None")
        targets = targets_of(batched_inputs, self.num_classes, images.images[0])
        tokens, looks = self.extract_tokens(images), self.criterion.reads_attention
        output = self.detect(tokens, keep_ratio, True, looks, targets)
        result = self.criterion(output, targets, images.image_ids)
        log_scalars(result.logs)
        return dict(result.weighted())
