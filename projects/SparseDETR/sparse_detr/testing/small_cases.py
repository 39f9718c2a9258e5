"""Runs a small golden case: every stage, loss and gradient of a whole detector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..criterion import CriterionOutput
from ..decoder_attention_map import binarised_target, correlation, decoder_attention_map
from ..meta_arch import TransformerDetector
from ..postprocess import TopDetections
from ..structures import DetectorOutput, FeatureMaps, Targets
from .comparison import Comparison
from .golden_model import load_released, small_model

Arrays = Mapping[str, np.ndarray[Any, Any]]

# Names of losses in the released code -> here.
_LOSSES = {"loss_ce": "loss_class", "loss_bbox": "loss_bbox", "loss_giou": "loss_giou"}
_DAM_LOSS = "loss_mask_prediction"


def run_small_case(folder: Path, name: str, meta: Mapping[str, Any]) -> Comparison:
    """Compares one case in float64 with the released-behaviour preset.

    Args:
        folder: Folder with ``<name>.npz`` and ``<name>_grads.npz``.
        name: Of the case.
        meta: Its entry of ``cases.json``.

    Raises:
        FileNotFoundError: A file of the case is missing.
    """
    comparison = Comparison(name)
    with np.load(folder / f"{name}.npz") as file:
        golden = dict(file)
    with np.load(folder / f"{name}_grads.npz") as file:
        gradients = dict(file)
    model = small_model(meta)
    prefix = "weights/"
    names = load_released(
        model, {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)}
    )
    features = {
        f"feat{i}": _double(golden[f"in/feat{i}"]).requires_grad_()
        for i in range(len(meta["channels"]))
    }
    output = _forward(model, features, golden)
    targets = _targets(golden, output.tokens.features.shape[0])
    assert model.criterion is not None
    result = model.criterion(output, targets, range(len(targets)))
    sum(result.weighted().values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    _check_tokens(comparison, output, golden)
    _check_predictions(comparison, output, golden)
    _check_attention_map(comparison, output, golden)
    _check_losses(comparison, result, golden)
    for parameter_name, parameter in model.named_parameters():
        key = names[parameter_name]
        expected = gradients.get(f"grad/{key}")
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        comparison.close(f"grad/{key}", got, 0 * got if expected is None else expected)
    for key, value in features.items():
        comparison.close(f"grad_in/{key}", value.grad, gradients[f"grad_in/{key}"])
    _check_postprocess(comparison, output, golden)
    return comparison


def _double(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def _forward(
    model: TransformerDetector, features: Mapping[str, Tensor], golden: Arrays
) -> DetectorOutput:
    sizes = [(int(h), int(w)) for h, w in golden["in/image_sizes"]]
    padded = golden["in/image_mask"].shape
    maps = model.feature_projection(features)
    merged = FeatureMaps.of_padded_images(maps, sizes, (padded[1], padded[2]))
    return model.detect(model.position_embedding(merged), supervise=True, with_sampling=True)


def _targets(golden: Arrays, batch: int) -> list[Targets]:
    return [
        Targets(
            torch.from_numpy(golden[f"in/targets{b}/labels"]),
            _double(golden[f"in/targets{b}/boxes"]),
        )
        for b in range(batch)
    ]


def _check_tokens(comparison: Comparison, output: DetectorOutput, golden: Arrays) -> None:
    tokens = output.tokens
    comparison.close("mid/src_flatten", tokens.features, golden["mid/src_flatten"])
    comparison.close(
        "mid/lvl_pos_embed_flatten", tokens.position, golden["mid/lvl_pos_embed_flatten"]
    )
    comparison.same("mid/mask_flatten", tokens.padding_mask, golden["mid/mask_flatten"])
    comparison.same("mid/spatial_shapes", tokens.spatial_shapes, golden["mid/spatial_shapes"])
    comparison.same(
        "mid/level_start_index", tokens.level_start_index, golden["mid/level_start_index"]
    )
    comparison.close("mid/valid_ratios", tokens.valid_ratios, golden["mid/valid_ratios"])
    comparison.close(
        "enc/reference_points", tokens.reference_points(), golden["enc/reference_points"]
    )
    if output.selection is not None:
        kept = output.selection.layers[0]
        comparison.close("score/masked", output.selection.token_scores, golden["score/masked"])
        comparison.same(
            "score/sparse_token_nums", kept.kept_counts, golden["score/sparse_token_nums"]
        )
        comparison.same("score/topk_indices", kept.kept_indices, golden["score/topk_indices"])


def _check_predictions(comparison: Comparison, output: DetectorOutput, golden: Arrays) -> None:
    queries = output.queries
    if queries.token_indices is not None:
        comparison.same(
            "two_stage/topk_indices", queries.token_indices, golden["two_stage/topk_indices"]
        )
    comparison.close("dec/tgt_in", queries.content, golden["dec/tgt_in"])
    comparison.close("dec/query_pos", queries.position, golden["dec/query_pos"])
    comparison.close("dec/reference_in", queries.reference_points, golden["dec/reference_in"])
    stages = {f"dec_{i}": p for i, p in enumerate(output.decoder.predictions)}
    stages.update({f"enc_aux_{i}": p for i, p in enumerate(output.encoder_auxiliary)})
    if queries.first_stage is not None:
        stages["enc"] = queries.first_stage
    expected = {k.split("/")[1] for k in golden if k.startswith("out/")}
    comparison.same("stages", sorted(stages), sorted(expected))
    for stage, predictions in stages.items():
        comparison.close(
            f"out/{stage}/pred_logits", predictions.logits, golden[f"out/{stage}/pred_logits"]
        )
        comparison.close(
            f"out/{stage}/pred_boxes", predictions.boxes_cxcywh, golden[f"out/{stage}/pred_boxes"]
        )


def _check_attention_map(comparison: Comparison, output: DetectorOutput, golden: Arrays) -> None:
    sampling, tokens = output.decoder.sampling, output.tokens
    comparison.close(
        "dec/sampling_locations",
        torch.stack([s.locations for s in sampling], dim=1),
        golden["dec/sampling_locations"],
    )
    comparison.close(
        "dec/attn_weights",
        torch.stack([s.weights for s in sampling], dim=1),
        golden["dec/attn_weights"],
    )
    attention = decoder_attention_map(sampling, tokens.spatial_shapes)
    comparison.close("dam/flat", attention, golden["dam/flat"])
    if output.selection is None:
        return
    kept = output.selection.layers[0]
    target = binarised_target(attention, tokens.padding_mask, kept.kept_counts)
    comparison.same("dam/binary_target", target, golden["dam/binary_target"])
    # Corr of the released code counts surplus rows as kept.
    selected = torch.zeros_like(tokens.padding_mask).scatter(1, kept.kept_indices, True)
    comparison.close(
        "corr/per_image_all", correlation(attention, selected), golden["corr/per_image_all"]
    )
    for level, values in enumerate(correlation(attention, selected, tokens.spatial_shapes)):
        comparison.close(
            f"corr/per_image_level{level}", values, golden[f"corr/per_image_level{level}"]
        )


def _check_losses(comparison: Comparison, result: CriterionOutput, golden: Arrays) -> None:
    weights = json.loads(str(golden["loss_weights_json"]))
    seen = set()
    for key in (k[len("loss/") :] for k in golden if k.startswith("loss/")):
        if key == _DAM_LOSS:
            name = "loss_decoder_attention_map"
        elif key == "class_error":
            # Stored in float32.
            comparison.close(f"loss/{key}", result.logs[key], golden[f"loss/{key}"], 1e-6)
            continue
        elif key.startswith("loss_"):
            base = "_".join(key.split("_")[:2])
            name = _LOSSES[base] + key[len(base) :]
        else:
            continue  # the other logs: corr is compared per image, cardinality means nothing here
        seen.add(name)
        comparison.close(f"loss/{key}", result.terms[name], golden[f"loss/{key}"])
        comparison.close(f"weight of {key}", result.weights[name], weights[key])
    comparison.same("loss terms", sorted(result.terms), sorted(seen))
    total = sum(float(v.detach()) for v in result.weighted().values())
    comparison.close("loss_total", total, golden["loss_total"])
    for key in (k for k in golden if k.startswith("match/")):
        _, stage, image = key.split("/")
        matches = result.matches[_suffix(stage, golden)][int(image[len("img") :])]
        comparison.same(key, torch.stack(matches), golden[key])


def _suffix(stage: str, golden: Arrays) -> str:
    """Suffix of the loss terms of a stage: ``dec_1`` -> ``""`` where layer 1 is the last."""
    last = max(int(k.split("/")[1][4:]) for k in golden if k.startswith("out/dec_"))
    if stage == f"dec_{last}":
        return ""
    if stage == "enc":
        return "_enc"
    return stage.replace("dec_", "_").replace("enc_aux_", "_enc_")


def _check_postprocess(comparison: Comparison, output: DetectorOutput, golden: Arrays) -> None:
    batch = output.tokens.features.shape[0]
    original_sizes = [(480, 640)] * batch
    detections = TopDetections().select(output.decoder.predictions[-1], original_sizes)
    for index, found in enumerate(detections):
        prefix = f"post/img{index}"
        comparison.close(f"{prefix}/scores", found.scores, golden[f"{prefix}/scores"])
        comparison.same(f"{prefix}/labels", found.classes, golden[f"{prefix}/labels"])
        comparison.close(f"{prefix}/boxes", found.boxes_xyxy, golden[f"{prefix}/boxes"])
