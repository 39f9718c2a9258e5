"""The cases of SMCA, on one level and on several: ``smca_*.npz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.key_table import KeyTable
from ..checkpoint.smca_keys import SMCA, SMCA_MULTI_SCALE, SMCA_MULTI_SCALE_SEPARATE
from ..config.loading import load_config
from ..feature_projection import PositionEmbedding
from ..layers.gaussian_attention import GaussianPrior
from ..meta_arch import TransformerDetector
from ..structures import FeatureMaps, FeatureTokens, Size
from .comparison import Array, Case, Comparison
from .official_case import (
    OfficialCase,
    OfficialRun,
    built_model,
    compare_run,
    compare_tokens,
    load_weights,
    run_case,
    with_official_positions,
    with_positions,
)

# Forms of the prior by the released code's number.
_SCALES = {1: "fixed", 2: "isotropic", 3: "axes", 4: "axes_and_product"}
# The reconstruction has the levels 1 to 3 of the released projection.
_RECONSTRUCTION = (
    KeyTable(
        (
            ("input_proj_1024.", "feature_projection.projections.0.0."),
            ("input_proj_2048.", "feature_projection.projections.1.0."),
            ("input_proj_2048_3.", "feature_projection.projections.2.0."),
        )
    )
    + SMCA
)


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of SMCA in a folder.

    Args:
        folder: Holds ``smca_*.npz``, or none.
    """
    for path in sorted(folder.glob("smca_ss_*.npz")):
        yield path.stem, partial(run_single_scale_case, path)
    for path in sorted(folder.glob("smca_ms_*.npz")):
        yield path.stem, partial(run_multi_scale_case, path)


def run_single_scale_case(path: Path) -> list[Comparison]:
    """Compares one case on one level in float64 with the released-behaviour preset."""
    case = OfficialCase.read(path)
    comparison = Comparison(case.name)
    tree = load_config("models/smca").model
    tree.decoder.prior_scale = _SCALES[case.setting("type")]
    tree.decoder.prior_smooth = case.setting("smooth")
    tree.postprocess.max_detections = case.setting("Q")
    if any(name.startswith("headshared/") for name in case.arrays):
        tree.decoder.heads_share_prior = True
        case = _with_shared_heads(case)
    model = built_model(case, tree)
    keys = load_weights(model, case.under("weight/"), SMCA.here)

    def compared(tokens: FeatureTokens) -> FeatureTokens:
        compare_tokens(comparison, case, tokens)
        return with_official_positions(case, tokens)

    names = _decoder_modules(model)
    run = run_case(case, model, [*_encoder_layers(model), *names], compared)
    mask = ~run.output.tokens.padding_mask
    for index in range(case.setting("NE")):
        (rows,) = run.hooked[f"encoder.layers.{index}"]
        wanted = case.arrays[f"mid/enc_layer{index}"].swapaxes(0, 1)
        comparison.close(f"mid/enc_layer{index}", rows[mask], wanted[mask.numpy()])
    _compare_decoder(comparison, case, run, run.output.tokens.spatial_shapes, True)
    compare_run(comparison, case, run, model, keys)
    return [comparison]


def _with_shared_heads(case: OfficialCase) -> OfficialCase:
    """The case with the single scale that all heads share in place of tied ones, and no offset.

    The released code has no such variant: the file was made with offsets of zero and with the
    scale of each head the same, so the gradient of the single one is the sum of theirs.
    """
    arrays = {
        name: array
        for name, array in case.arrays.items()
        if not name.startswith("headshared/") and ".point2." not in name
    }
    for index in range(case.setting("ND")):
        for kind in ("weight", "bias"):
            key = f"transformer.decoder.layers.{index}.point3.{kind}"
            arrays[f"weight/{key}"] = case.arrays[f"headshared/layer{index}/scale.{kind}"]
            tied = arrays[f"grad/{key}"]
            arrays[f"grad/{key}"] = tied.reshape(-1, 2, *tied.shape[1:]).sum(0)
    return OfficialCase(case.name, arrays)


def run_multi_scale_case(path: Path) -> list[Comparison]:
    """Compares one case on several levels in float64 with the released-behaviour preset."""
    case = OfficialCase.read(path)
    comparison = Comparison(case.name)
    if "cfg/joint" in case.arrays:
        _compare_reconstruction(comparison, case)
    else:
        _compare_convolutions(comparison, case)
    return [comparison]


def _compare_convolutions(comparison: Comparison, case: OfficialCase) -> None:
    """Compares a case whose encoder convolves."""
    weights = case.under("weight/")
    first = "transformer.encoder.layers.0."
    separate = f"{first}high_to_low_1.weight" in weights
    tree = load_config(f"models/smca_multi_scale{'_separate' if separate else ''}").model
    tree.encoder.kernel_size = int(weights[f"{first}self_attn_8.weight"].shape[-1])
    _size_tree(tree, case)
    model = built_model(case, tree)
    table = SMCA_MULTI_SCALE_SEPARATE if separate else SMCA_MULTI_SCALE
    keys = load_weights(model, weights, table.here)
    levels = (8, 16, 32, 64)

    def compared(tokens: FeatureTokens) -> FeatureTokens:
        masks = [case.arrays[f"mid/feat_mask/s{s}"] for s in levels]
        mask = np.concatenate([m.reshape(len(m), -1) for m in masks], axis=1)
        comparison.same("mid/feat_mask", tokens.padding_mask, mask)
        maps = [case.arrays[f"mid/pos/s{s}"] for s in levels]
        given = np.concatenate([m.reshape(*m.shape[:2], -1) for m in maps], axis=2).swapaxes(1, 2)
        level_embed = tokens.positions.level_embed[tokens.geometry.cells[2]]
        computed = tokens.position - level_embed
        comparison.close("mid/pos", computed, given, 1e-6)
        return with_positions(tokens, torch.from_numpy(given).double() + level_embed)

    names = [*_encoder_layers(model), "encoder.halve", *_decoder_modules(model)]
    run = run_case(case, model, names, compared, levels)
    shapes = run.output.tokens.spatial_shapes
    for index in range(case.setting("NE")):
        (rows,) = run.hooked[f"encoder.layers.{index}"]
        _compare_levels(comparison, case, f"mid/enc_layer{index}", rows, shapes, levels)
    (halved,) = run.hooked["encoder.halve"]
    comparison.close("mid/mem8_down", halved, case.arrays["mid/mem8_down"])
    _compare_decoder(comparison, case, run, (shapes[1], *shapes[1:]), True)
    compare_run(comparison, case, run, model, keys)


def _compare_reconstruction(comparison: Comparison, case: OfficialCase) -> None:
    """Compares the case whose encoder attends; the file is no work of the released code."""
    joint = case.arrays["cfg/joint"]
    added = {"cfg/NE": np.asarray(len(joint))}
    # The file leaves the weights of the losses out; its total loss confirms them.
    for term, weight in (("loss_ce", 2), ("loss_bbox", 5), ("loss_giou", 2)):
        added.update({f"loss_weight/{term}{stage}": np.asarray(weight) for stage in ("", "_0")})
    case = OfficialCase(case.name, {**case.arrays, **added})
    tree = load_config("models/smca_multi_scale_reconstruction").model
    tree.encoder.joint_layers = [int(i) for i in np.flatnonzero(joint)]
    tree.decoder.level_factors = [float(f) for f in case.arrays["cfg/mult"]]
    _size_tree(tree, case)
    model = built_model(case, tree)
    keys = load_weights(model, case.under("weight/"), _RECONSTRUCTION.here)
    levels = (16, 32, 64)
    names = [*_encoder_layers(model), *_decoder_modules(model)]
    run = run_case(case, model, names, _with_float32_positions, levels)
    shapes = run.output.tokens.spatial_shapes
    mask = ~run.output.tokens.padding_mask
    for index in range(len(joint)):
        (rows,) = run.hooked[f"encoder.layers.{index}"]
        wanted = [case.arrays[f"mid/enc_layer{index}/s{s}"] for s in levels]
        own = np.concatenate(wanted, axis=1)[mask.numpy()]
        comparison.close(f"mid/enc_layer{index}", rows[mask], own)
    _compare_decoder(comparison, case, run, shapes, False)
    compare_run(comparison, case, run, model, keys)


def _with_float32_positions(tokens: FeatureTokens) -> FeatureTokens:
    """Tokens with positions computed in float32, as the released code does in every precision."""
    channels, shapes = tokens.features.shape[-1], tokens.spatial_shapes
    maps = tuple(torch.zeros(len(tokens.features), channels, *shape) for shape in shapes)
    embedding = PositionEmbedding(channels, len(shapes), True, offset=0.0, level_embedding=False)
    computed = embedding(FeatureMaps(maps, tokens.geometry.covered)).position.double()
    level_embed = tokens.positions.level_embed[tokens.geometry.cells[2]]
    return with_positions(tokens, computed + level_embed)


def _size_tree(tree: Any, case: OfficialCase) -> None:
    """Sets what several levels have beside the sizes of every case."""
    tree.decoder.prior_smooth = case.setting("smooth")
    tree.decoder.feedforward_dim = case.setting("FF")
    tree.decoder.dropout = 0.0
    tree.postprocess.max_detections = case.setting("Q")
    tree.decoder.alpha_of_first_image = case.arrays.get("cfg/alpha_per_image", 1) == 0


def _encoder_layers(model: TransformerDetector) -> list[str]:
    return [f"encoder.layers.{i}" for i in range(len(model.encoder.layers))]


def _decoder_modules(model: TransformerDetector) -> list[str]:
    layers = [f"decoder.layers.{i}" for i in range(len(model.decoder.layers))]
    parts = [f"{name}.{part}" for name in layers for part in ("prior", "prior.norm", "cross_attn")]
    return [*layers, *parts, "decoder.norm", "decoder.initial_centres"]


def _compare_levels(
    comparison: Comparison,
    case: OfficialCase,
    name: str,
    rows: Tensor,
    shapes: Sequence[Size],
    levels: Sequence[int],
) -> None:
    """Compares tokens (B, N, C) with one map per level."""
    parts = rows.split_with_sizes([h * w for h, w in shapes], dim=1)
    for stride, shape, part in zip(levels, shapes, parts, strict=True):
        maps = part.transpose(1, 2).reshape(len(rows), -1, *shape)
        comparison.close(f"{name}/s{stride}", maps, case.arrays[f"{name}/s{stride}"])


def _compare_decoder(
    comparison: Comparison,
    case: OfficialCase,
    run: OfficialRun,
    shapes: Sequence[Size],
    queries_first: bool,
) -> None:
    """Compares centres, priors, weights of levels and the queries of every layer.

    Args:
        comparison: Takes the differences.
        case: The case.
        run: What the detector made of it.
        shapes: (H_l, W_l) of the levels that the decoder reads.
        queries_first: Whether tensors of the file are (Q, B, ...) instead of (B, Q, ...).
    """

    def of_file(name: str) -> Array:
        array = case.arrays[name]
        return array.swapaxes(0, 1) if queries_first else array

    (centres,) = run.hooked["decoder.initial_centres"]
    comparison.close("mid/points_logit", centres.logit(), case.arrays["mid/points_logit"])
    for index in range(case.setting("ND")):
        place, layer = f"mid/dec_layer{index}", f"decoder.layers.{index}"
        norms = run.hooked[f"{layer}.prior.norm"]
        comparison.close(f"{place}/norm4", norms[-1], of_file(f"{place}/norm4"))
        ((priors, level_weights),) = run.hooked[f"{layer}.prior"]
        name = f"{place}/logG"
        comparison.close(name, _log_maps(priors, shapes, case), case.arrays[name])
        if level_weights is not None:
            name = f"{place}/alpha"
            comparison.close(name, level_weights, _alpha(of_file(name), case))
        ((content, attention),) = run.hooked[layer]
        comparison.close(place, content, of_file(place))
        name = f"{place}/cross_attn_w"
        comparison.close(name, attention, case.arrays[name].sum(1))
    if "mid/hs" in case.arrays:
        comparison.close("mid/hs", run.hooked["decoder.norm"], case.arrays["mid/hs"])


def _alpha(alpha: Array, case: OfficialCase) -> Array:
    """(B, Q, L) the weights of the levels as they were used."""
    if case.arrays.get("cfg/alpha_per_image", 1) == 0:
        return np.broadcast_to(alpha[:1], alpha.shape)
    return alpha


def _log_maps(
    priors: Sequence[GaussianPrior], shapes: Sequence[Size], case: OfficialCase
) -> Tensor:
    """(B, H, Q, N) logarithms of the priors on all levels."""
    maps = [prior.log_map(shape) for prior, shape in zip(priors, shapes, strict=True)]
    return torch.cat(maps, dim=-1).expand(-1, case.setting("H"), -1, -1)
