"""Runs the full-size golden case: Sparse DETR R50 on a real image, in evaluation mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..backbone.resnet_keys import detectron2_to_released
from ..checkpoint.released_keys import to_released
from ..decoder_attention_map import correlation, decoder_attention_map
from ..meta_arch import TransformerDetector
from .comparison import Comparison
from .golden_model import model_config, released_flags
from .seed_recipe import seeded_tensor

_FLAGS = (
    "--with_box_refine --two_stage --eff_query_init --eff_specific_head --rho {} --use_enc_aux_loss"
)
# Stored in float32.
_FLOAT32 = 1e-6


def run_full_size_case(path: Path, model: TransformerDetector | None = None) -> Comparison:
    """Compares ``full_r50_rho<ratio>.npz`` in float64 with the released-behaviour preset.

    Args:
        path: The file; its name gives the keeping ratio.
        model: A detector that has the case's weights already, in float64 and evaluation mode.
    """
    comparison = Comparison(path.stem)
    with np.load(path) as file:
        golden = dict(file)
    if model is None:
        model = _detector(float(path.stem.split("rho")[1]), int(golden["recipe_seed"]))
    image = torch.from_numpy(golden["image_uint8_hwc"]).permute(2, 0, 1)
    width, height = (int(v) for v in golden["original_wh"])
    inputs: list[dict[str, Any]] = [{"image": image, "height": height, "width": width}]
    with torch.no_grad():
        images = model.preprocess(inputs)
        output = model.detect(model.extract_tokens(images), supervise=True, with_sampling=True)
        assert output.selection is not None and output.queries.first_stage is not None
        kept = output.selection.layers[0]
        comparison.same("spatial_shapes", output.tokens.spatial_shapes, golden["spatial_shapes"])
        comparison.close("score", output.selection.token_scores, golden["score"])
        comparison.same("sparse_token_nums", kept.kept_counts, golden["sparse_token_nums"])
        comparison.same("topk_indices", kept.kept_indices, golden["topk_indices"])
        comparison.same("query_indices", output.queries.token_indices, golden["query_indices"])
        first_stage = output.queries.first_stage
        objectness = first_stage.logits.amax(-1)
        comparison.close("enc_objectness", objectness, golden["enc_objectness"], _FLOAT32)
        layers = output.decoder.predictions
        comparison.close("pred_logits", layers[-1].logits, golden["pred_logits"], _FLOAT32)
        comparison.close("pred_boxes", layers[-1].boxes_cxcywh, golden["pred_boxes"])
        auxiliary = [p.boxes_cxcywh for p in layers[:-1]]
        comparison.close("aux_boxes", auxiliary, golden["aux_boxes"], _FLOAT32)
        means = [p.boxes_cxcywh.mean((0, 1)) for p in output.encoder_auxiliary]
        comparison.close("enc_aux_boxes_mean", means, golden["enc_aux_boxes_mean"])
        shapes = output.tokens.spatial_shapes
        attention = decoder_attention_map(output.decoder.sampling, shapes)
        comparison.close("dam", attention, golden["dam"], 1e-5)
        selected = kept.membership(attention.shape[1])
        corr = torch.cat(
            [correlation(attention, selected)[None], correlation(attention, selected, shapes)]
        )
        comparison.close("corr", corr, golden["corr"])
        found = model.postprocess.select(layers[-1], images.original_sizes)[0]
        comparison.close("post_scores", found.scores, golden["post_scores"])
        comparison.same("post_labels", found.classes, golden["post_labels"])
        comparison.close("post_boxes", found.boxes_xyxy, golden["post_boxes"])
        _check_inference(comparison, model, inputs, found.boxes_xyxy, found.scores)
    return comparison


def _detector(keep_ratio: float, seed: int) -> TransformerDetector:
    config = model_config(released_flags(_FLAGS.format(keep_ratio)), refinement_attached=True)
    config.model.num_classes = 91
    model: TransformerDetector = instantiate(config.model)
    model.double().eval()
    state = model.state_dict()
    for name, value in state.items():
        key = _released_key(name)
        state[name] = torch.from_numpy(seeded_tensor(key, value.shape, seed))
    model.load_state_dict(state)
    return model


def _released_key(name: str) -> str:
    prefix = "backbone."
    if name.startswith(prefix):
        key = detectron2_to_released(name[len(prefix) :])
    else:
        key = to_released(name)
    if key is None:
        raise ValueError(f"every weight must have a released name, {name!r} has none")
    return key


def _check_inference(
    comparison: Comparison,
    model: TransformerDetector,
    inputs: list[dict[str, Any]],
    boxes: Tensor,
    scores: Tensor,
) -> None:
    """The lean inference path gives what the supervised path gives."""
    found = model(inputs)[0]["instances"]
    assert isinstance(found, Instances) and isinstance(found.pred_boxes, Boxes)
    comparison.close("inference scores", found.scores, scores)
    # Detectron2 holds boxes in float32.
    comparison.close("inference boxes", found.pred_boxes.tensor, boxes, _FLOAT32)
