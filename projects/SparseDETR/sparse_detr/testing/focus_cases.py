"""Cases of Focus-DETR: small detectors in training and evaluation, and the labels alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.focus_keys import FOCUS
from ..criterion import ForegroundLoss, foreground_labels
from ..encoder import DualAttentionEncoder, DualAttentionEncoderLayer
from ..feature_projection import PositionEmbedding
from ..layers.boxes import xyxy_to_cxcywh
from ..meta_arch import TransformerDetector
from ..query_selection import Proposals
from ..structures import FeatureMaps, Targets
from ..token_scoring import ForegroundScoring
from ..token_selection import Cascade
from ..token_selection.cascade import RELEASED_FACTORS, share_of
from .comparison import Case, Comparison
from .detrex_case import (
    Arrays,
    DetrexRun,
    loaded,
    meta_of,
    run_evaluation_case,
    run_training_case,
    small_config,
    small_detector,
    targets_in,
)

_STRIDES = (8, 16, 32, 64)
# Values updated as in the paper's algorithm 1; the weights are those of another case.
_UPDATED_VALUES, _ITS_WEIGHTS = "variant_updval_small", "focus_small"
# What an encoder layer was called with.
LayerInputs = list[tuple[Any, ...]]


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of Focus-DETR in a folder."""
    names = [p.name.removesuffix(".weights.npz") for p in folder.glob("focus_*.weights.npz")]
    for name in [*sorted(names), _UPDATED_VALUES]:
        for kind in ("dn", "nodn"):
            if (folder / f"{name}.fwd_{kind}.npz").is_file():
                yield f"{name}.{kind}", partial(_training, folder, name, kind)
        if (folder / f"{name}.eval.npz").is_file():
            yield f"{name}.eval", partial(_evaluation, folder, name)
    if (folder / "labels.npz").is_file():
        yield "labels", partial(_labels, folder / "labels.npz")


def _detector(folder: Path, name: str, kind: str) -> tuple[TransformerDetector, LayerInputs]:
    """The detector of a case, and a list that takes what its encoder layers are called with."""
    meta = meta_of(folder / f"{name}.{kind}.npz")
    updated = name == _UPDATED_VALUES
    config = small_config(meta, "focus_detr")
    config.model.keep_ratio = str(Cascade(meta["focus_rho"], meta["cascade"][: meta["enc"]]))
    config.model.encoder.num_objects = meta["topk_sa"]
    config.model.encoder.update_values = updated
    weights = loaded(folder / f"{_ITS_WEIGHTS if updated else name}.weights.npz")
    model = small_detector(config, weights, FOCUS)
    inputs: LayerInputs = []
    for layer in model.encoder.layers:
        layer.register_forward_pre_hook(lambda m, args: inputs.append(args))
    return model, inputs


def _training(folder: Path, name: str, kind: str) -> list[Comparison]:
    model, inputs = _detector(folder, name, f"fwd_{kind}")
    extra = partial(_compare_focus, inputs)
    return [run_training_case(folder, name, kind, model, FOCUS, extra)]


def _evaluation(folder: Path, name: str) -> list[Comparison]:
    model, inputs = _detector(folder, name, "eval")
    model.postprocess.max_detections = 30
    return [run_evaluation_case(folder, name, model, partial(_compare_focus, inputs))]


def _compare_focus(
    inputs: LayerInputs, comparison: Comparison, found: DetrexRun, golden: Arrays
) -> None:
    """Compares what Focus-DETR adds to DINO."""
    with torch.no_grad():
        _compare_scores(comparison, found, golden)
        _compare_selection(comparison, found, golden)
        if "enc.memory" in golden:
            _compare_encoder(inputs, comparison, found, golden)


def _compare_scores(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    """Compares the projected tokens and the scores of all levels."""
    model, tokens, selection = found.model, found.tokens, found.output.selection
    scoring = model.token_scoring
    assert isinstance(scoring, ForegroundScoring) and selection is not None
    assert selection.raw_scores is not None
    projected = Proposals.of(tokens, model.proposal_projection, True).project_positioned(tokens)
    if "fts.tokens" in golden:
        comparison.close("fts.tokens", projected, golden["fts.tokens"])
        comparison.close("fts.logits", selection.raw_scores[..., None], golden["fts.logits"])
    sizes = [height * width for height, width in tokens.spatial_shapes]
    scores = selection.raw_scores.split_with_sizes(sizes, dim=1)
    for level, rows in enumerate(projected.split_with_sizes(sizes, dim=1)):
        alone = scoring.network.logits(rows, None)
        comparison.close(f"fts.score_unmod.{level}", alone, golden[f"fts.score_unmod.{level}"])
        comparison.close(f"fts.score_mod.{level}", scores[level], golden[f"fts.score_mod.{level}"])
        if level + 1 < len(sizes):
            lead = scoring.resized(scores[level + 1], level, tokens)
            expected = golden[f"fts.up.{level}"]
            comparison.close(f"fts.up.{level}", lead.view(expected.shape), expected)


def _compare_selection(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    """Compares the numbers and the order of the kept tokens, and the labels."""
    tokens, selection = found.tokens, found.output.selection
    assert selection is not None
    comparison.close("fts.logits_masked", selection.token_scores, golden["fts.logits_masked"])
    comparison.same("fts.valid_token_nums", tokens.valid_counts, golden["fts.valid_token_nums"])
    first = selection.layers[0].kept_counts
    comparison.same("fts.focus_token_nums", first, golden["fts.focus_token_nums"])
    widths = [kept.kept_indices.shape[1] for kept in selection.layers]
    comparison.same("fts.layer_topk", widths, golden["fts.layer_topk"])
    shares = [share_of(max(first), factor) for factor in RELEASED_FACTORS]
    comparison.same("fts.cascade_topk_all6", shares, golden["fts.cascade_topk_all6"])
    for layer, kept in enumerate(selection.layers):
        comparison.same(f"fts.topk_idx.{layer}", kept.kept_indices, golden[f"fts.topk_idx.{layer}"])
        own = tuple(min(count, widths[layer]) for count in first)
        comparison.same(f"own rows of layer {layer}", kept.kept_counts, own)
    if "fts.labels" in golden:
        loss = found.model.criterion.token_scoring if found.model.criterion else None
        assert isinstance(loss, ForegroundLoss)
        labels = foreground_labels(tokens, targets_in(golden), loss.ranges)
        comparison.same("fts.labels", labels, golden["fts.labels"].astype(bool))


def _compare_encoder(
    inputs: LayerInputs, comparison: Comparison, found: DetrexRun, golden: Arrays
) -> None:
    """Compares scores, choice and attention of the objects, and the rows, layer by layer."""
    model, selection = found.model, found.output.selection
    encoder, tokens = model.encoder, found.tokens.features
    assert isinstance(encoder, DualAttentionEncoder) and selection is not None
    assert selection.token_scores is not None
    outputs: list[Tensor] = found.watched.encoder
    for index, (layer, arguments) in enumerate(zip(encoder.layers, inputs, strict=True)):
        assert isinstance(layer, DualAttentionEncoderLayer)
        rows, position, objects = arguments[0], arguments[2], arguments[-1]
        kept = selection.for_layer(index)
        foreground = kept.gather(selection.token_scores)
        category = model.heads.first_stage().logits(rows).amax(-1)
        scores = encoder.multi_category_scores(foreground, category)
        tokens = kept.scatter(tokens, outputs[index])
        for name, value in (
            ("fg", foreground),
            ("cls_max", category),
            ("p", scores),
            ("sa_out", layer.updated_objects(rows, position, objects)),
            ("query_out", outputs[index]),
            ("tokens_out", tokens),
        ):
            last = name == "tokens_out" and index == len(outputs) - 1
            key = "enc.memory" if last else f"enc.{index}.{name}"
            comparison.close(key, value, golden[key])
        key = f"enc.{index}.sel_idx"
        comparison.same(key, objects.kept_indices, golden[key])


def _labels(path: Path) -> list[Comparison]:
    """Labels of images of full size, and the loss of random scores with its gradient."""
    golden, comparison = loaded(path), Comparison("labels")
    sizes = [(int(height), int(width)) for height, width in golden["image_sizes"]]
    height, width = (int(length) for length in golden["padded_hw"])
    shapes = [(int(h), int(w)) for h, w in golden["level_shapes"]]
    maps = [torch.zeros(len(sizes), 4, *shape, dtype=torch.float64) for shape in shapes]
    embedding = PositionEmbedding(4, len(shapes)).double()
    tokens = embedding(FeatureMaps.of_padded_images(maps, sizes, (height, width), _STRIDES))
    targets = []
    for image, (rows, columns) in enumerate(sizes):
        boxes = torch.from_numpy(golden[f"gt_boxes_xyxy.{image}"]).view(-1, 4)
        boxes = xyxy_to_cxcywh(boxes / boxes.new_tensor([columns, rows, columns, rows]))
        targets.append(Targets(torch.zeros(len(boxes), dtype=torch.int64), boxes))
    loss = ForegroundLoss(include_padding=True)
    labels = foreground_labels(tokens, targets, loss.ranges)
    comparison.same("labels", labels, golden["labels"].astype(bool))
    logits = torch.from_numpy(golden["loss_logits"]).requires_grad_()
    # The scores are those of the two coarsest levels.
    there = slice(labels.shape[1] - logits.shape[1], None)
    own, padding = labels[:, there], tokens.padding_mask[:, there]
    mean = loss.loss(logits, own, padding)
    (gradient,) = torch.autograd.grad(mean, logits)
    each = [loss.loss(logits[[b]], own[[b]], padding[[b]]) for b in range(len(sizes))]
    comparison.close("focal_mean", mean, golden["focal_mean"])
    comparison.close("focal_per_image", torch.stack(each), golden["focal_per_image"])
    comparison.close("focal_grad", gradient, golden["focal_grad"])
    return [comparison]
