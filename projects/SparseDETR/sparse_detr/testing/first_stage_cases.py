"""The cases of two-stage query selection: ``twostage_plain.npz`` and ``eff_queryinit.npz``.

They start at the tokens and end at the queries of the decoder layers; there is no loss, but a
weighted sum of the queries whose gradients are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint.released_keys import from_released
from ..config.loading import load_config
from ..meta_arch import TransformerDetector
from ..query_selection import TwoStageQueries
from ..structures import DetectorOutput, FeatureMaps, FeatureTokens, TokenGeometry
from .comparison import Case, Comparison
from .official_case import OfficialCase, built_model, load_weights, with_positions

_CASES = ("twostage_plain", "eff_queryinit")


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of both cases.

    Args:
        folder: Holds the files, or none.
    """
    for name in _CASES:
        if (folder / f"{name}.npz").is_file():
            yield name, partial(run_first_stage_case, folder / f"{name}.npz")


def run_first_stage_case(path: Path) -> list[Comparison]:
    """Compares one case in float64 with the released-behaviour preset."""
    case = OfficialCase.read(path)
    comparison = Comparison(case.name)
    model = _model(case)
    keys = load_weights(model, case.under("weight/"), _name_here)
    sources = [
        torch.from_numpy(case.arrays[f"input/src{level}"]).requires_grad_()
        for level in range(case.setting("L"))
    ]
    tokens = _tokens(case, model, sources)
    layers: list[Any] = []
    for layer in model.decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: layers.append(output[0]))
    memories: list[Tensor] = []
    model.encoder.layers[-1].register_forward_hook(lambda m, i, output: memories.append(output))
    given = torch.from_numpy(case.arrays["mid/proposal_pos_embed"])

    def embedded(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        # The released code has the wavelengths in float32, whatever the type of the rest.
        comparison.close("mid/proposal_pos_embed", inputs[0], given, 1e-6)
        return (given,)

    queries = model.query_selection
    assert isinstance(queries, TwoStageQueries)
    queries.position_projection.register_forward_pre_hook(embedded)
    output = model.detect(tokens, supervise=True)
    states = torch.stack(layers)
    (states * torch.from_numpy(case.arrays["grad_probe/w"])).sum().backward()  # type: ignore[no-untyped-call]
    comparison.close("out/hs", states, case.arrays["out/hs"])
    comparison.close("mid/memory", memories[-1], case.arrays["mid/memory"])
    _compare_stages(comparison, case, output)
    for name, parameter in model.named_parameters():
        key = f"grad/{keys[name]}"
        if key not in case.arrays:  # the file leaves some out
            continue
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        comparison.close(key, gradient, case.arrays[key])
    for level, source in enumerate(sources):
        name = f"grad_input/src{level}"
        comparison.close(name, source.grad, case.arrays[name])
    wanted = {f"grad/{key}" for key in keys.values()}
    missing = [k for k in case.arrays if k.startswith("grad/") and k not in wanted]
    comparison.same("gradients of the reference that the run lacks", missing, [])
    return [comparison]


def _compare_stages(comparison: Comparison, case: OfficialCase, output: DetectorOutput) -> None:
    """Compares the first stage, the choice of tokens, and what the queries start from."""
    arrays, queries = case.arrays, output.queries
    first = queries.first_stage
    assert first is not None and queries.position is not None
    comparison.close("mid/enc_outputs_class", first.logits, arrays["mid/enc_outputs_class"])
    comparison.close("out/enc_outputs_coord", first.boxes_cxcywh, arrays["out/enc_outputs_coord"])
    comparison.same("mid/topk_proposals", queries.token_indices, arrays["mid/topk_proposals"])
    starts = (("out/init_reference", queries.reference_points),
              ("mid/reference_points0", queries.reference_points),
              ("mid/query_pos", queries.position),
              ("mid/tgt0", queries.content))  # fmt: skip
    for name, value in starts:
        comparison.close(name, value, arrays[name])
    boxes = [stage.boxes_cxcywh for stage in output.decoder.predictions]
    comparison.close("out/inter_references", boxes, arrays["out/inter_references"])
    computed = _geometry(output.tokens.geometry)
    unact = arrays["mid/proposals_unact"]
    logits, is_proposal, _ = computed.proposals
    comparison.same("mid/proposals_unact, which are valid", is_proposal, np.isfinite(unact).all(-1))
    # The released code computes them in float32 whatever the type of the rest.
    comparison.close("mid/proposals_unact", logits, unact, 1e-5)
    comparison.close("mid/valid_ratios", computed.valid_ratios, arrays["mid/valid_ratios"], 1e-6)


def _model(case: OfficialCase) -> TransformerDetector:
    """The detector of a case, whose tokens are given."""
    efficient = bool(case.setting("eff_query_init"))
    name = "efficient_detr" if efficient else "deformable_detr_two_stage"
    model = load_config(f"models/{name}").model
    model.num_levels = case.setting("L")
    model.query_selection.class_specific = bool(case.setting("eff_specific_head"))
    channels = {f"feat{level}": np.zeros((1, 1)) for level in range(case.setting("L"))}
    given = {f"input/{name}": array for name, array in channels.items()}
    # Its logits are one per class, all of them counted.
    sizes = {**case.arrays, **given, "cfg/C": np.asarray(case.setting("C") - 1)}
    detector = built_model(OfficialCase(case.name, sizes), model)
    detector.feature_projection = nn.Identity()  # type: ignore[assignment]
    return detector


def _name_here(key: str) -> str | None:
    """The parameter of a key; heads stand below the decoder in the files."""
    if "_embed." in key and "level_embed" not in key:
        key = key.removeprefix("transformer.decoder.")
    return from_released(key)


def _tokens(case: OfficialCase, model: TransformerDetector, sources: list[Tensor]) -> FeatureTokens:
    """The tokens of a case, with what the released code computes in float32 from its file."""
    masks = [case.arrays[f"input/mask{level}"] for level in range(len(sources))]
    covered = tuple(
        tuple((int((~m[b])[:, 0].sum()), int((~m[b])[0].sum())) for m in masks)
        for b in range(len(sources[0]))
    )
    tokens: FeatureTokens = model.position_embedding(FeatureMaps(tuple(sources), covered))
    given = [
        torch.from_numpy(case.arrays[f"input/pos{level}"]).flatten(2).transpose(1, 2)
        for level in range(len(sources))
    ]
    level_embed = tokens.positions.level_embed[tokens.geometry.cells[2]]
    unact = torch.from_numpy(case.arrays["mid/proposals_unact"]).double()
    valid = unact.isfinite().all(-1)
    ratios = torch.from_numpy(case.arrays["mid/valid_ratios"])
    tokens.geometry.made.update(
        valid_ratios=ratios.double(),
        reference_points=_float32_references(tokens.geometry, ratios),
        proposals=(unact, valid, (~valid).flatten().nonzero()[:, 0]),
    )
    return with_positions(tokens, torch.cat(given, dim=1) + level_embed)


def _float32_references(geometry: TokenGeometry, ratios: Tensor) -> Tensor:
    """(B, N, L, 2) centres of the tokens on each level, rounded as the released code does."""
    centres = []
    for level, (height, width) in enumerate(geometry.spatial_shapes):
        rows = torch.linspace(0.5, height - 0.5, height, dtype=torch.float32)
        columns = torch.linspace(0.5, width - 0.5, width, dtype=torch.float32)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        y = y.reshape(-1)[None] / (ratios[:, None, level, 1] * height)
        x = x.reshape(-1)[None] / (ratios[:, None, level, 0] * width)
        centres.append(torch.stack([x, y], dim=-1))
    return (torch.cat(centres, dim=1)[:, :, None] * ratios[:, None]).double()


def _geometry(geometry: TokenGeometry) -> TokenGeometry:
    """The same geometry, with nothing given."""
    return TokenGeometry(geometry.spatial_shapes, geometry.covered, geometry.device, geometry.dtype)
