"""Runs a small case and records every stage under the names of the reference vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.released_keys import to_released
from ..criterion import CriterionOutput
from ..decoder_attention_map import binarised_target, correlation, decoder_attention_map
from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, FeatureMaps, Predictions, Targets
from .comparison import Array, as_array

Arrays = Mapping[str, Array]
_LOSS_NAMES = {
    "loss_class": "loss_ce",
    "loss_bbox": "loss_bbox",
    "loss_giou": "loss_giou",
    "loss_decoder_attention_map": "loss_mask_prediction",
}
# Post-processing of the reference vectors.
_ORIGINAL_SIZE = (480, 640)


@dataclass
class CaseRecord:
    """What a run gave.

    Attributes:
        numbers: Arrays to compare within a tolerance.
        integers: Arrays that must be identical.
        gradients: Gradients of the total loss, by ``grad/KEY`` and ``grad_in/MAP``.
        loss_weights: Weight of each loss term, by released name.
    """

    numbers: dict[str, Array] = field(default_factory=dict)
    integers: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)

    def number(self, name: str, value: Any) -> None:
        """Records numbers."""
        self.numbers[name] = as_array(value)

    def integer(self, name: str, value: Any) -> None:
        """Records integers or truth values."""
        self.integers[name] = as_array(value)


def record_case(model: TransformerDetector, inputs: Arrays) -> CaseRecord:
    """Forward, losses and gradients of a small case.

    Args:
        model: Without backbone, in float64 and training mode.
        inputs: ``in/feat{l}``, ``in/image_mask``, ``in/image_sizes``, ``in/targets{b}/...``.
    """
    record = CaseRecord()
    names = [k.split("/")[1] for k in inputs if k.startswith("in/feat")]
    features = {n: _double(inputs[f"in/{n}"]).requires_grad_() for n in names}
    sizes = [(int(h), int(w)) for h, w in inputs["in/image_sizes"]]
    targets = [
        Targets(
            torch.from_numpy(np.asarray(inputs[f"in/targets{b}/labels"])),
            _double(inputs[f"in/targets{b}/boxes"]),
        )
        for b in range(len(sizes))
    ]
    padded = inputs["in/image_mask"].shape
    maps = model.feature_projection(features)
    merged = FeatureMaps.of_padded_images(maps, sizes, (padded[1], padded[2]))
    tokens = model.position_embedding(merged)
    output = model.detect(tokens, supervise=True, with_sampling=True)
    assert model.criterion is not None
    result = model.criterion(output, targets, range(len(targets)))
    total = torch.stack(list(result.weighted().values())).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    _record_tokens(record, output)
    _record_predictions(record, output)
    _record_attention_map(record, output)
    _record_losses(record, result, total)
    _record_gradients(record, model, features)
    found = model.postprocess.select(
        output.decoder.predictions[-1], [_ORIGINAL_SIZE] * len(targets)
    )
    for index, detections in enumerate(found):
        record.number(f"post/img{index}/scores", detections.scores)
        record.integer(f"post/img{index}/labels", detections.classes)
        record.number(f"post/img{index}/boxes", detections.boxes_xyxy)
    return record


def _double(array: Array) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def _record_tokens(record: CaseRecord, output: DetectorOutput) -> None:
    tokens = output.tokens
    record.number("mid/src_flatten", tokens.features)
    record.number("mid/lvl_pos_embed_flatten", tokens.position)
    record.integer("mid/mask_flatten", tokens.padding_mask)
    record.integer("mid/spatial_shapes", tokens.spatial_shapes)
    record.integer("mid/level_start_index", tokens.level_start_index)
    record.number("mid/valid_ratios", tokens.valid_ratios)
    record.number("enc/reference_points", tokens.reference_points())
    if output.selection is not None:
        kept = output.selection.layers[0]
        record.number("score/masked", output.selection.token_scores)
        record.integer("score/sparse_token_nums", kept.kept_counts)
        record.integer("score/topk_indices", kept.kept_indices)


def _record_predictions(record: CaseRecord, output: DetectorOutput) -> None:
    queries = output.queries
    if queries.token_indices is not None:
        record.integer("two_stage/topk_indices", queries.token_indices)
    record.number("dec/tgt_in", queries.content)
    record.number("dec/query_pos", queries.position)
    record.number("dec/reference_in", queries.reference_points)
    stages: dict[str, Predictions] = {
        f"dec_{i}": p for i, p in enumerate(output.decoder.predictions)
    }
    stages.update({f"enc_aux_{i}": p for i, p in enumerate(output.encoder_auxiliary)})
    if queries.first_stage is not None:
        stages["enc"] = queries.first_stage
    for stage, predictions in stages.items():
        record.number(f"out/{stage}/pred_logits", predictions.logits)
        record.number(f"out/{stage}/pred_boxes", predictions.boxes_cxcywh)


def _record_attention_map(record: CaseRecord, output: DetectorOutput) -> None:
    sampling, tokens = output.decoder.sampling, output.tokens
    record.number("dec/sampling_locations", torch.stack([s.locations for s in sampling], dim=1))
    record.number("dec/attn_weights", torch.stack([s.weights for s in sampling], dim=1))
    attention = decoder_attention_map(sampling, tokens.spatial_shapes)
    record.number("dam/flat", attention)
    if output.selection is None:
        return
    kept = output.selection.layers[0]
    target = binarised_target(attention, tokens.padding_mask, kept.kept_counts)
    record.integer("dam/binary_target", target)
    # Corr of the released code counts surplus rows as kept.
    selected = kept.membership(attention.shape[1], with_surplus=True)
    record.number("corr/per_image_all", correlation(attention, selected))
    for level, values in enumerate(correlation(attention, selected, tokens.spatial_shapes)):
        record.number(f"corr/per_image_level{level}", values)


def _record_losses(record: CaseRecord, result: CriterionOutput, total: Tensor) -> None:
    for name, value in result.terms.items():
        base = next(b for b in _LOSS_NAMES if name.startswith(b))
        released = _LOSS_NAMES[base] + name[len(base) :]
        record.number(f"loss/{released}", value)
        record.loss_weights[released] = result.weights[name]
    record.number("loss_total", total)
    # Stage names of the reference: the final decoder layer has its number, not an empty suffix.
    last = sum(suffix[1:].isdigit() for suffix in result.matches)
    for suffix, matches in result.matches.items():
        stage = {"": f"dec_{last}", "_enc": "enc"}.get(suffix)
        if stage is None:
            stage = f"dec{suffix}" if suffix[1:].isdigit() else f"enc_aux{suffix[4:]}"
        for index, match in enumerate(matches):
            record.integer(f"match/{stage}/img{index}", torch.stack(match))


def _record_gradients(
    record: CaseRecord, model: TransformerDetector, features: Mapping[str, Tensor]
) -> None:
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        record.gradients[f"grad/{to_released(name)}"] = as_array(gradient)
    for name, value in features.items():
        assert value.grad is not None
        record.gradients[f"grad_in/{name}"] = as_array(value.grad)
