"""The criterion: matching and loss terms of every supervised stage.

Role in the flow: heads -> **criterion** (training).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..class_scores import ClassTargets
from ..layers.precision import at_least_float32
from ..layers.process_mean import mean_over_processes
from ..matcher import BatchObjects, HungarianMatcher, Match, StageMatches, fixed_matches
from ..structures import DenoisingRows, DetectorOutput, Predictions, Targets, TokenSelection
from .corr import CorrLog
from .finite_check import CheckedValues, check_all_finite
from .foreground_loss import ForegroundLoss
from .loss_terms import box_l1_sum, giou_sum
from .poll_regularisation import PollRegularisation
from .token_scoring_loss import TokenScoringLoss


@dataclass(frozen=True)
class SupervisedStage:
    """Predictions of one stage with its names.

    Attributes:
        suffix: Appended to the names of its loss terms.
        name: The stage in words, for messages.
        predictions: What it predicted.
        denoising: Of denoising queries, how they lie: their objects are given. None where the
            matcher finds the objects.
    """

    suffix: str
    name: str
    predictions: Predictions
    denoising: DenoisingRows | None = None


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
        matcher: The matcher, run anew for every stage; it also says how classes are scored.
        class_weight: Weight of the classification terms.
        bbox_weight: Weight of the L1 terms.
        giou_weight: Weight of the generalised IoU terms.
        token_scoring_weight: Weight of the token scoring loss.
        token_scoring: The loss of a scoring network or of foreground scores, :class:`CorrLog` for
            other criteria, or None where tokens are not selected.
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
        token_scoring: TokenScoringLoss
        | ForegroundLoss
        | PollRegularisation
        | CorrLog
        | None = None,
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

    @property
    def reads_attention(self) -> bool:
        """Whether a loss or a figure is about what the decoder's cross-attention read."""
        return self.token_scoring is not None and self.token_scoring.reads_attention

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
            stages = supervised_stages(output, self.supervise_all_rows)
            objects = BatchObjects.of(targets)
            # The device has the costs to work on while the host waits for the check.
            matched = [stage.predictions for stage in stages if stage.denoising is None]
            pending = self.matcher.prepare(matched, objects)
            given = [
                fixed_matches(stage.denoising, objects.labels.device)
                for stage in stages
                if stage.denoising is not None
            ]
            check_all_finite(self._checked(stages, output), image_ids)
            matches = pending.solve() + given
            self._stage_terms(stages, matches, objects, num_boxes, result)
            if self.token_scoring is not None:
                loss, logs = self.token_scoring(output, targets)
                if loss is not None:
                    name = self.token_scoring.loss_name
                    result.terms[name] = loss
                    result.weights[name] = self.token_scoring_weight
                result.logs.update(logs)
        if output.selection is not None:
            result.logs.update(_kept_tokens(output.selection, num_boxes.dtype))
        return result

    @staticmethod
    def _num_boxes(targets: Sequence[Targets], like: Tensor) -> Tensor:
        """Mean number of objects per process, at least 1, as a scalar tensor."""
        count = sum(len(t.labels) for t in targets)
        dtype = at_least_float32(like.dtype)
        total = torch.full((), float(count), dtype=dtype, device=like.device)
        return mean_over_processes(total).clamp(min=1)

    def _checked(
        self, stages: Sequence[SupervisedStage], output: DetectorOutput
    ) -> list[CheckedValues]:
        """What must be finite before the losses are taken, in the order of the messages."""
        checked = []
        for stage in stages:
            predictions = stage.predictions
            checked.append(CheckedValues(stage.name, "class logits", predictions.logits))
            checked.append(CheckedValues(stage.name, "boxes", predictions.boxes_cxcywh))
        scores = output.selection.token_scores if output.selection else None
        if self.token_scoring is not None and scores is not None:
            own = scores.masked_fill(output.tokens.padding_mask, 0)
            checked.append(CheckedValues("token scoring", "scores", own))
        return checked

    def _stage_terms(
        self,
        stages: Sequence[SupervisedStage],
        matches: Sequence[StageMatches],
        objects: BatchObjects,
        num_boxes: Tensor,
        result: CriterionOutput,
    ) -> None:
        """Adds the terms of all stages; the box terms are computed for all pairs at once."""
        classes, boxes = [], []
        for stage, match in zip(stages, matches, strict=True):
            predictions = stage.predictions
            logits = predictions.logits.to(at_least_float32(predictions.logits.dtype))
            label = objects.labels[match.batch_object]
            if predictions.class_agnostic:
                label = torch.zeros_like(label)
            positive = (match.image, match.row, label)
            classes.append(ClassTargets(logits, positive, predictions.candidate_mask))
            boxes.append(predictions.boxes_cxcywh[match.image, match.row].to(logits.dtype))
            result.matches[stage.suffix] = match.of_images()
            if not stage.suffix:
                chosen = logits.detach()[match.image, match.row]
                result.logs["class_error"] = _class_error(chosen, label)
        matched = torch.cat(boxes)
        box = objects.boxes_cxcywh[torch.cat([match.batch_object for match in matches])]
        box = box.to(matched.dtype)
        sections = [len(match.row) for match in matches]
        class_scores, eps = self.matcher.class_scores, self.matcher.iou_eps
        copies = [1 if s.denoising is None else s.denoising.groups for s in stages]
        norms = num_boxes * num_boxes.new_tensor(copies)
        kinds = {
            "loss_class": (class_scores.losses(classes, norms), self.class_weight),
            "loss_bbox": (box_l1_sum(matched, box, sections) / norms, self.bbox_weight),
            "loss_giou": (giou_sum(matched, box, sections, eps) / norms, self.giou_weight),
        }
        means = {name: values.unbind() for name, (values, _) in kinds.items()}
        for index, stage in enumerate(stages):
            for name, (_, weight) in kinds.items():
                result.terms[name + stage.suffix] = means[name][index]
                result.weights[name + stage.suffix] = weight


def supervised_stages(output: DetectorOutput, all_rows: bool = False) -> list[SupervisedStage]:
    """The stages that a loss is taken of, the final decoder layer first.

    Args:
        output: Of a training forward pass.
        all_rows: Drop the candidate masks.

    Returns:
        Stages with the suffixes of the released code: none for the final decoder layer, ``_i`` for
        decoder layer i, ``_enc`` for the first stage, ``_enc_i`` for encoder layer i; and
        ``_objectness`` for the head that tokens are selected by. Then, with objects that are given,
        ``_dn`` and ``_dn_i`` for the denoising queries after the final layer and layer i.
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
    if output.selection is not None and output.selection.predictions is not None:
        stages.append(
            SupervisedStage("_objectness", "objectness head", output.selection.predictions)
        )
    stages += _denoising_stages(output)
    if all_rows:
        return [replace(s, predictions=replace(s.predictions, candidate_mask=None)) for s in stages]
    return stages


def _denoising_stages(output: DetectorOutput) -> list[SupervisedStage]:
    """The stages of the denoising queries, the final decoder layer first."""
    layers, rows = output.decoder.denoising, output.queries.denoising
    last = len(layers) - 1
    found = [
        SupervisedStage(
            "_dn" if i == last else f"_dn_{i}",
            f"denoising queries after decoder layer {i}",
            predictions,
            rows,
        )
        for i, predictions in enumerate(layers)
    ]
    return found[-1:] + found[:-1]


def _kept_tokens(selection: TokenSelection, dtype: torch.dtype) -> dict[str, Tensor]:
    """Kept tokens of an image and layer on average, and those of each layer where they differ."""
    means = torch.tensor([kept.kept_counts for kept in selection.layers], dtype=dtype).mean(1)
    logs = {f"kept_tokens_layer{i}": mean for i, mean in enumerate(means)}
    return {"kept_tokens": means.mean(), **(logs if len(means) > 1 else {})}


def _class_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Per cent of matched predictions whose best class is wrong; 0 without objects."""
    if not len(labels):
        return logits.new_zeros(())
    return 100 - 100 * (logits.argmax(-1) == labels).to(logits.dtype).mean()
