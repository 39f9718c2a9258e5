"""The criterion: matching and loss terms of every supervised stage.

Role in the flow: heads -> **criterion** (training).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..layers.precision import at_least_float32
from ..matcher import HungarianMatcher, Match
from ..structures import DetectorOutput, Predictions, Targets
from .finite_check import check_finite
from .loss_terms import box_l1_sum, focal_sum, giou_sum
from .token_scoring_loss import TokenScoringLoss


@dataclass(frozen=True)
class SupervisedStage:
    """Predictions of one stage with its names.

    Attributes:
        suffix: Appended to the names of its loss terms.
        name: The stage in words, for messages.
        predictions: What it predicted.
    """

    suffix: str
    name: str
    predictions: Predictions


@dataclass
class CriterionOutput:
    """Loss terms without weights, their weights, and what is only logged.

    Attributes:
        terms: Scalars by name; one per stage and kind.
        weights: Weight of each term.
        logs: Scalars by name, without gradient.
        matches: Matches of each stage, by suffix.
    """

    terms: dict[str, Tensor]
    weights: dict[str, float]
    logs: dict[str, Tensor] = field(default_factory=dict)
    matches: dict[str, list[Match]] = field(default_factory=dict)

    def weighted(self) -> dict[str, Tensor]:
        """Weighted terms; their sum is the total loss."""
        return {name: term * self.weights[name] for name, term in self.terms.items()}


class SetCriterion(nn.Module):
    """Set prediction loss with Hungarian matching in every stage.

    Args:
        matcher: The matcher, run anew for every stage.
        class_weight: Weight of the classification terms.
        bbox_weight: Weight of the L1 terms.
        giou_weight: Weight of the generalised IoU terms.
        token_scoring_weight: Weight of the token scoring loss.
        token_scoring: The token scoring loss, or None where no network scores tokens.
        supervise_all_rows: False leaves rows that are no candidates (padding, tokens without
            proposal, surplus rows) out of the loss. True is the released behaviour.

    Source: Sparse DETR, section 3.5; DETR, section 3.1; Deformable DETR, appendix A.4.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        class_weight: float = 2.0,
        bbox_weight: float = 5.0,
        giou_weight: float = 2.0,
        token_scoring_weight: float = 1.0,
        token_scoring: TokenScoringLoss | None = None,
        supervise_all_rows: bool = False,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.class_weight = class_weight
        self.bbox_weight = bbox_weight
        self.giou_weight = giou_weight
        self.token_scoring_weight = token_scoring_weight
        self.token_scoring = token_scoring
        self.supervise_all_rows = supervise_all_rows

    def forward(
        self,
        output: DetectorOutput,
        targets: Sequence[Targets],
        image_ids: Sequence[object],
    ) -> CriterionOutput:
        """Loss terms of a batch.

        Args:
            output: Of a training forward pass.
            targets: Objects of the B images.
            image_ids: B ids, for messages.

        Raises:
            NonFinitePredictionError: A stage predicted NaN or infinity.
        """
        result = CriterionOutput({}, {})
        num_boxes = self._num_boxes(targets, output.tokens.features)
        with torch.autocast(output.tokens.features.device.type, enabled=False):
            for stage in supervised_stages(output, self.supervise_all_rows):
                self._stage_terms(stage, targets, image_ids, num_boxes, result)
            if self.token_scoring is not None:
                scores = output.selection.token_scores if output.selection else None
                if scores is not None:
                    own = scores.masked_fill(output.tokens.padding_mask, 0)
                    check_finite("token scoring", "scores", own, image_ids)
                loss, logs = self.token_scoring(output)
                result.terms["loss_decoder_attention_map"] = loss
                result.weights["loss_decoder_attention_map"] = self.token_scoring_weight
                result.logs.update(logs)
        if output.selection is not None:
            counts = output.selection.layers[0].kept_counts
            kept = torch.tensor(counts, dtype=num_boxes.dtype)
            result.logs["kept_tokens"] = kept.mean()
        return result

    @staticmethod
    def _num_boxes(targets: Sequence[Targets], like: Tensor) -> Tensor:
        """Mean number of objects per process, at least 1, as a scalar tensor."""
        count = sum(len(t.labels) for t in targets)
        total = torch.tensor(float(count), dtype=at_least_float32(like.dtype), device=like.device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
            total = total / comm.get_world_size()
        return total.clamp(min=1)

    def _stage_terms(
        self,
        stage: SupervisedStage,
        targets: Sequence[Targets],
        image_ids: Sequence[object],
        num_boxes: Tensor,
        result: CriterionOutput,
    ) -> None:
        predictions = stage.predictions
        dtype = at_least_float32(predictions.logits.dtype)
        logits, boxes = predictions.logits.to(dtype), predictions.boxes_cxcywh.to(dtype)
        check_finite(stage.name, "class logits", logits, image_ids)
        check_finite(stage.name, "boxes", boxes, image_ids)
        matches = self.matcher(predictions, targets)
        image = torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(matches)])
        row = torch.cat([rows for rows, _ in matches])
        label = torch.cat([t.labels[o] for t, (_, o) in zip(targets, matches, strict=True)])
        box = torch.cat([t.boxes_cxcywh[o] for t, (_, o) in zip(targets, matches, strict=True)])
        if predictions.class_agnostic:
            label = torch.zeros_like(label)
        matched = boxes[image, row]
        alpha, gamma = self.matcher.alpha, self.matcher.gamma
        terms = {
            "loss_class": (
                focal_sum(logits, (image, row, label), predictions.candidate_mask, alpha, gamma),
                self.class_weight,
            ),
            "loss_bbox": (box_l1_sum(matched, box.to(dtype)), self.bbox_weight),
            "loss_giou": (giou_sum(matched, box.to(dtype)), self.giou_weight),
        }
        for name, (total, weight) in terms.items():
            result.terms[name + stage.suffix] = total / num_boxes
            result.weights[name + stage.suffix] = weight
        result.matches[stage.suffix] = matches
        if not stage.suffix:
            result.logs["class_error"] = _class_error(logits.detach()[image, row], label)


def supervised_stages(output: DetectorOutput, all_rows: bool = False) -> list[SupervisedStage]:
    """The stages that a loss is taken of, the final decoder layer first.

    Args:
        output: Of a training forward pass.
        all_rows: Drop the candidate masks.

    Returns:
        Stages with the suffixes of the released code: none for the final decoder layer, ``_i`` for
        decoder layer i, ``_enc`` for the first stage, ``_enc_i`` for encoder layer i.
    """
    decoder = output.decoder.predictions
    stages = [SupervisedStage("", f"decoder layer {len(decoder) - 1}", decoder[-1])]
    stages += [
        SupervisedStage(f"_{i}", f"decoder layer {i}", p) for i, p in enumerate(decoder[:-1])
    ]
    if output.queries.first_stage is not None:
        stages.append(SupervisedStage("_enc", "first stage", output.queries.first_stage))
    stages += [
        SupervisedStage(f"_enc_{i}", f"auxiliary head of encoder layer {i}", p)
        for i, p in enumerate(output.encoder_auxiliary)
    ]
    if all_rows:
        return [replace(s, predictions=replace(s.predictions, candidate_mask=None)) for s in stages]
    return stages


def _class_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Per cent of matched predictions whose best class is wrong; 0 without objects."""
    if not len(labels):
        return logits.new_zeros(())
    return 100 - 100 * (logits.argmax(-1) == labels).to(logits.dtype).mean()
