"""Runs the golden vectors of single operations: ``ops.npz`` of a folder of reference vectors.

Whole detectors exercise most rules already; these vectors reach the corners that they miss, such as
samples far outside a map, padded sizes of every remainder, and token counts of every ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..criterion import SetCriterion
from ..decoder_attention_map import correlation, decoder_attention_map
from ..feature_projection import PositionEmbedding
from ..layers.boxes import inverse_sigmoid
from ..layers.ms_deform_attn import ms_deform_attn
from ..layers.ms_deform_attn_reference import ms_deform_attn_torch
from ..layers.sine_encoding import sine_features
from ..matcher import HungarianMatcher
from ..postprocess import TopDetections
from ..query_selection import proposal_grid
from ..structures import (
    DecoderOutput,
    DecoderQueries,
    DetectorOutput,
    FeatureMaps,
    FeatureTokens,
    Predictions,
    Sampling,
    Size,
    Targets,
)
from ..token_scoring import ScoringNetwork
from ..token_selection import kept_count
from .comparison import Comparison
from .seed_recipe import seeded_tensor

Arrays = Mapping[str, np.ndarray[Any, Any]]

_NUM_LEVELS = 4
# (height, width) of the original images that the stored detections are scaled to.
_ORIGINAL_SIZES = ((480, 640), (333, 500), (427, 640))
_SCORING_PREFIX = "transformer.enc_mask_predictor."


def run_operator_cases(folder: Path) -> list[Comparison]:
    """Compares every operation in float64.

    Args:
        folder: Folder with ``ops.npz``.

    Returns:
        One comparison per group of vectors, named ``ops/<group>``.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file holds a group that no check here reads.
    """
    with np.load(folder / "ops.npz") as file:
        golden = dict(file)
    unknown = sorted({key.split("/")[0] for key in golden} - set(_CHECKS))
    if unknown:
        raise ValueError(f"ops.npz must hold only the groups {sorted(_CHECKS)}, got also {unknown}")
    comparisons = []
    for group, check in _CHECKS.items():
        comparison = Comparison(f"ops/{group}")
        check(comparison, _below(golden, group))
        comparisons.append(comparison)
    return comparisons


def _below(golden: Arrays, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays whose key starts with ``prefix/``, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in golden.items() if k.startswith(f"{prefix}/")}


def _cases(golden: Arrays) -> list[str]:
    """Names of the cases of a group, which are the first part of its keys."""
    return sorted({key.split("/")[0] for key in golden})


def _double(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def _sizes(array: np.ndarray[Any, Any]) -> list[Size]:
    return [(int(height), int(width)) for height, width in array]


def _check_deformable_attention(comparison: Comparison, golden: Arrays) -> None:
    """Values and gradients, of the backend in use and of the pure-torch path."""
    for case in _cases(golden):
        arrays = _below(golden, case)
        for backend, operator in (("op", ms_deform_attn), ("torch", ms_deform_attn_torch)):
            inputs = {
                name: _double(arrays[name]).requires_grad_()
                for name in ("value", "sampling_locations", "attention_weights")
            }
            value, locations, weights = inputs.values()
            output = operator(value, _sizes(arrays["spatial_shapes"]), locations, weights)
            comparison.close(f"{case}/{backend}/out", output, arrays["out"])
            if "grad_out" not in arrays:
                continue  # on a cell border the gradient is one of two
            output.backward(_double(arrays["grad_out"]))  # type: ignore[no-untyped-call]
            for name, tensor in inputs.items():
                comparison.close(
                    f"{case}/{backend}/grad_{name}", tensor.grad, arrays[f"grad_{name}"]
                )


def _check_attention_map(comparison: Comparison, golden: Arrays) -> None:
    """The map, in all and of each layer and head, and Corr for given tokens."""
    for case in _cases(golden):
        arrays = _below(golden, case)
        shapes = _sizes(arrays["spatial_shapes"])
        locations = _double(arrays["sampling_locations"]).unbind(1)
        weights = _double(arrays["attention_weights"]).unbind(1)
        sampling = [Sampling(*pair) for pair in zip(locations, weights, strict=True)]
        attention = decoder_attention_map(sampling, shapes)
        comparison.close(f"{case}/flat", attention, arrays["flat"])
        for layer, read in enumerate(sampling):
            for head in range(read.weights.shape[2]):
                one = Sampling(
                    read.locations[:, :, head : head + 1], read.weights[:, :, head : head + 1]
                )
                comparison.close(
                    f"{case}/layer{layer}_head{head}",
                    decoder_attention_map([one], shapes),
                    arrays["per_layer_head"][:, layer, head],
                )
        selected = torch.zeros(attention.shape, dtype=torch.bool)
        selected.scatter_(1, torch.from_numpy(arrays["topk_indices"]), True)
        comparison.close(f"{case}/corr_all", correlation(attention, selected), arrays["corr_all"])
        comparison.close(
            f"{case}/corr_levels", correlation(attention, selected, shapes), arrays["corr_levels"]
        )


def _tokens_of(masks: Sequence[np.ndarray[Any, Any]], hidden_dim: int) -> FeatureTokens:
    """Tokens without content, with released positions and no level embedding.

    Args:
        masks: For each level (B, H_l, W_l) bool, True on padding.
        hidden_dim: Channels C.
    """
    batch = len(masks[0])
    rows = [(~mask[:, :, 0]).sum(1) for mask in masks]
    columns = [(~mask[:, 0, :]).sum(1) for mask in masks]
    valid = tuple(
        tuple((int(r[b]), int(c[b])) for r, c in zip(rows, columns, strict=True))
        for b in range(batch)
    )
    maps = tuple(
        torch.zeros((batch, hidden_dim, *mask.shape[1:]), dtype=torch.float64) for mask in masks
    )
    embedding = PositionEmbedding(hidden_dim, len(masks), encode_padding=True).double()
    torch.nn.init.zeros_(embedding.level_embed)
    tokens: FeatureTokens = embedding(FeatureMaps(maps, valid))
    return tokens


def _check_position(comparison: Comparison, golden: Arrays) -> None:
    """Sine positions, on padding too; stored channels first."""
    expected = golden["float64"]
    channels = expected.shape[1]
    tokens = _tokens_of([golden["mask"]], channels)
    comparison.same("mask", tokens.padding_mask, golden["mask"].reshape(len(expected), -1))
    comparison.close(
        "float64", tokens.position, expected.reshape(len(expected), channels, -1).swapaxes(1, 2)
    )


def _check_proposal_position(comparison: Comparison, golden: Arrays) -> None:
    """Sine features of boxes that are given as logits."""
    expected = golden["embed"]
    angles = _double(golden["unact"]).sigmoid() * (2 * math.pi)
    features = sine_features(angles, expected.shape[-1] // angles.shape[-1])
    comparison.close("embed", features.flatten(-2), expected)


def _check_inverse_sigmoid(comparison: Comparison, golden: Arrays) -> None:
    """The clamped logit, at and beyond its limits."""
    comparison.close("y", inverse_sigmoid(_double(golden["x"])), golden["y"])


def _check_proposals(comparison: Comparison, golden: Arrays) -> None:
    """Box proposals, counts, valid ratios and the encoder's reference points."""
    shapes = _sizes(golden["spatial_shapes"])
    ends = np.cumsum([height * width for height, width in shapes])[:-1]
    levels = np.split(golden["mask_flatten"], ends, axis=1)
    masks = [m.reshape(-1, *shape) for m, shape in zip(levels, shapes, strict=True)]
    tokens = _tokens_of(masks, hidden_dim=4)
    comparison.same("mask_flatten", tokens.padding_mask, golden["mask_flatten"])
    comparison.close("unact", proposal_grid(tokens).box_logits, golden["unact"])
    comparison.same("valid_token_nums", tokens.valid_counts, golden["valid_token_nums"])
    comparison.close("valid_ratios", tokens.valid_ratios, golden["valid_ratios"])
    comparison.close(
        "encoder_reference_points", tokens.reference_points(), golden["encoder_reference_points"]
    )


def _check_masks(comparison: Comparison, golden: Arrays) -> None:
    """Rows and columns that an image covers on every level, for many sizes."""
    (table,) = golden.values()
    for row in table:
        padded, image = (int(row[0]), int(row[1])), (int(row[2]), int(row[3]))
        maps = []
        for level in range(_NUM_LEVELS):
            # Shapes are all that matters here, so no memory is taken.
            cells = (-(-length // 2 ** (level + 3)) for length in padded)
            maps.append(torch.empty((1, 1, *cells), device="meta"))
        valid = FeatureMaps.of_padded_images(maps, [image], padded).valid_sizes[0]
        comparison.same(f"{image} in {padded}", valid, row[4:].reshape(-1, 2))


def _check_token_counts(comparison: Comparison, golden: Arrays) -> None:
    """How many tokens to keep, for every ratio and number of tokens."""
    for ratio, expected in zip(golden["rho"], golden["k"], strict=True):
        counts = [kept_count(int(valid), float(ratio)) for valid in golden["valid"]]
        comparison.same(f"rho {ratio}", counts, expected)


def _check_scoring_network(comparison: Comparison, golden: Arrays) -> None:
    """The scoring network with weights by the seed recipe."""
    features = _double(golden["input"])
    network = ScoringNetwork(features.shape[-1]).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            released = name.replace("embed.", "layer1.").replace("score.", "layer2.")
            array = seeded_tensor(
                _SCORING_PREFIX + released, parameter.shape, int(golden["recipe_seed"])
            )
            parameter.copy_(torch.from_numpy(array))
    no_padding = torch.zeros(features.shape[:2], dtype=torch.bool)
    comparison.close("output", network.logits(features, no_padding)[..., None], golden["output"])


def _check_criterion(comparison: Comparison, golden: Arrays) -> None:
    """Matches, loss terms, gradients and detections of one set of predictions."""
    logits = _double(golden["pred_logits"]).requires_grad_()
    boxes = _double(golden["pred_boxes"]).requires_grad_()
    predictions = Predictions(logits, boxes)
    targets = [
        Targets(
            torch.from_numpy(golden[f"targets{b}/labels"]), _double(golden[f"targets{b}/boxes"])
        )
        for b in range(len(logits))
    ]
    criterion = SetCriterion(HungarianMatcher())
    result = criterion(_decoder_only(predictions), targets, range(len(logits)))
    for index, match in enumerate(result.matches[""]):
        comparison.same(f"match{index}", torch.stack(match), golden[f"match{index}"])
    for name, released in (("class", "ce"), ("bbox", "bbox"), ("giou", "giou")):
        comparison.close(
            f"loss_{released}", result.terms[f"loss_{name}"], golden[f"loss_{released}"]
        )
    # Stored in float32.
    comparison.close("class_error", result.logs["class_error"], golden["class_error"], 1e-6)
    torch.stack(list(result.weighted().values())).sum().backward()  # type: ignore[no-untyped-call]
    comparison.close("grad_logits", logits.grad, golden["grad_logits"])
    comparison.close("grad_boxes", boxes.grad, golden["grad_boxes"])
    for index, found in enumerate(TopDetections().select(predictions, _ORIGINAL_SIZES)):
        comparison.close(f"post{index}/scores", found.scores, golden[f"post{index}/scores"])
        comparison.same(f"post{index}/labels", found.classes, golden[f"post{index}/labels"])
        comparison.close(f"post{index}/boxes", found.boxes_xyxy, golden[f"post{index}/boxes"])


def _decoder_only(predictions: Predictions) -> DetectorOutput:
    """Output of a detector whose only supervised stage is the final decoder layer."""
    batch = len(predictions.logits)
    tokens = _tokens_of([np.zeros((batch, 1, 1), dtype=np.bool_)], hidden_dim=4)
    queries = DecoderQueries(tokens.features, tokens.position, tokens.features[..., :2])
    return DetectorOutput(tokens, None, (), queries, DecoderOutput((predictions,)))


_CHECKS: dict[str, Callable[[Comparison, Arrays], None]] = {
    "msda": _check_deformable_attention,
    "dam": _check_attention_map,
    "pos": _check_position,
    "proposal_pos": _check_proposal_position,
    "isig": _check_inverse_sigmoid,
    "proposals": _check_proposals,
    "masks": _check_masks,
    "token_count": _check_token_counts,
    "mask_predictor": _check_scoring_network,
    "crit": _check_criterion,
}
