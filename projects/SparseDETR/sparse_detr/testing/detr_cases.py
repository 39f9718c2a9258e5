"""The cases of DETR: ``detr_*.npz``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..checkpoint.detr_keys import DETR
from ..config.loading import load_config
from ..structures import FeatureTokens
from .comparison import Case, Comparison
from .official_case import (
    OfficialCase,
    OfficialRun,
    built_model,
    compare_run,
    compare_tokens,
    load_weights,
    run_case,
    with_official_positions,
)

# Learned positions have a name of their own in the files.
_LEARNED = "backbone.pos."


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of DETR in a folder.

    Args:
        folder: Holds ``detr_*.npz``, or none.
    """
    for path in sorted(folder.glob("detr_*.npz")):
        yield path.stem, partial(run_detr_case, path)


def run_detr_case(path: Path) -> list[Comparison]:
    """Compares one case in float64 with the released-behaviour preset."""
    case = OfficialCase.read(path)
    comparison = Comparison(case.name)
    model = built_model(case, model_tree(case))
    keys = load_weights(model, case.under("weight/"), name_here)
    layers = [f"encoder.layers.{i}" for i in range(len(model.encoder.layers))]
    layers += [f"decoder.layers.{i}" for i in range(len(model.decoder.layers))]

    def compared(tokens: FeatureTokens) -> FeatureTokens:
        compare_tokens(comparison, case, tokens)
        return tokens if _is_learned(case) else with_official_positions(case, tokens)

    final = ["encoder.norm"] if case.setting("pre_norm") else []
    run = run_case(case, model, [*layers, *final, "decoder.norm"], compared)
    _compare_layers(comparison, case, run)
    compare_run(comparison, case, run, model, keys)
    return [comparison]


def model_tree(case: OfficialCase) -> Any:
    """The tree of the model that a case was made with."""
    name = "detr_pre_norm_learned" if case.setting("pre_norm") else "detr"
    model = load_config(f"models/{name}").model
    # The released class weight is a float32 number.
    weight = float(np.float32(model.criterion.matcher.class_scores.no_object_weight))
    model.criterion.matcher.class_scores.no_object_weight = weight
    return model


def name_here(key: str) -> str | None:
    """The parameter of a key of the file."""
    return DETR.here(key.replace(_LEARNED, "backbone.1."))


def _is_learned(case: OfficialCase) -> bool:
    return any(key.startswith(f"weight/{_LEARNED}") for key in case.arrays)


def _compare_layers(comparison: Comparison, case: OfficialCase, run: OfficialRun) -> None:
    """Compares encoder layers where there is no padding, decoder layers and attention maps."""
    mask = ~run.output.tokens.padding_mask

    def own(rows: Tensor) -> Tensor:
        return rows[mask]

    arrays = case.arrays
    for index in range(case.setting("NE")):
        (rows,) = run.hooked[f"encoder.layers.{index}"]
        wanted = arrays[f"mid/enc_layer{index}"].swapaxes(0, 1)
        comparison.close(f"mid/enc_layer{index}", own(rows), wanted[mask.numpy()])
    if "mid/memory" in arrays:
        (memory,) = run.hooked["encoder.norm"]
        comparison.close(
            "mid/memory", own(memory), arrays["mid/memory"].swapaxes(0, 1)[mask.numpy()]
        )
    heads = case.setting("H")
    for index in range(case.setting("ND")):
        ((rows, attention),) = run.hooked[f"decoder.layers.{index}"]
        wanted = arrays[f"mid/dec_layer{index}"].swapaxes(0, 1)
        comparison.close(f"mid/dec_layer{index}", rows, wanted)
        name = f"mid/dec_layer{index}/cross_attn_w_headavg"
        comparison.close(name, attention / heads, arrays[name])
    comparison.close("mid/hs", run.hooked["decoder.norm"], arrays["mid/hs"])
