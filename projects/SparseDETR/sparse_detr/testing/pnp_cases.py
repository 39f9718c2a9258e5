"""The cases of PnP-DETR: ``pnp_*.npz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint.pnp_detr_keys import pnp_detr_keys
from ..config.loading import load_config
from ..criterion import PollRegularisation
from ..structures import DetectorOutput, FeatureTokens, Targets, TokenSelection
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
)

_LOSS = "sample_reg_loss"


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of PnP-DETR in a folder.

    Args:
        folder: Holds ``pnp_*.npz``, or none.
    """
    for path in sorted(folder.glob("pnp_*.npz")):
        yield path.stem, partial(run_pnp_case, path)


def run_pnp_case(path: Path) -> list[Comparison]:
    """Compares one case in float64 with the released-behaviour preset."""
    case = _here(OfficialCase.read(path))
    comparison = Comparison(case.name)
    model = built_model(case, model_tree(case))
    key_layers = 2 if case.setting("kproj_net").startswith("2layer") else 1
    score_layers = 1 if case.setting("score_pred_net").startswith("1layer") else 2
    table = pnp_detr_keys(key_layers, score_layers)
    keys = load_weights(model, case.under("weight/"), table.here)

    def compared(tokens: FeatureTokens) -> FeatureTokens:
        compare_tokens(comparison, case, tokens)
        return with_official_positions(case, tokens)

    if bool(case.arrays["mid/reg_depends_on_padding_order"]):
        assert model.criterion is not None
        rows = torch.from_numpy(case.arrays["mid/sampler/topk_index"])
        model.criterion.token_scoring = _InGivenOrder(rows=rows)
    layers = [f"encoder.layers.{i}" for i in range(len(model.encoder.layers))]
    layers += [f"decoder.layers.{i}" for i in range(len(model.decoder.layers))]
    run = run_case(case, model, [*layers, "decoder.norm"], compared)
    selection = run.output.selection
    assert selection is not None
    _compare_sampling(comparison, case, run, selection)
    _compare_layers(comparison, case, run, selection)
    compare_run(comparison, case, run, model, keys)
    return [comparison]


def model_tree(case: OfficialCase) -> Any:
    """The tree of the model that a case was made with."""
    model = load_config("models/pnp_detr").model
    # The released class weight is a float32 number.
    weight = float(np.float32(model.criterion.matcher.class_scores.no_object_weight))
    model.criterion.matcher.class_scores.no_object_weight = weight
    kind = case.setting("score_pred_net")
    if kind.startswith("2layer"):
        first = case.arrays["weight/transformer.sampler.score_pred_net.0.weight"]
        model.token_scoring.score_dim = int(first.shape[0])
    else:
        model.token_scoring.score_dim = None
    model.token_selection.num_pooled = case.setting("M")
    model.token_selection.key_layers = int(case.setting("kproj_net")[0])
    model.token_selection.position_in_keys = bool(case.setting("pos_embed_kproj"))
    model.token_selection.training_ratios = None
    ratio = case.setting("ratio")
    model.keep_ratio = 1 / 3 if ratio < 0 else ratio
    return model


def _here(case: OfficialCase) -> OfficialCase:
    """The case with linear layers in place of one-by-one convolutions, and the loss by its name."""
    arrays = dict(case.arrays)
    for name, array in case.arrays.items():
        if ".score_pred_net." in name and array.ndim == 4:
            arrays[name] = array[:, :, 0, 0]
    for prefix in ("loss", "loss_weight"):
        arrays[f"{prefix}/{PollRegularisation.loss_name}"] = arrays.pop(f"{prefix}/{_LOSS}")
    return OfficialCase(case.name, arrays)


@dataclass(frozen=True)
class _InGivenOrder(PollRegularisation):
    """The released regularisation over given rows: which padding it counts is chance there.

    Attributes:
        rows: (B, K) the tokens in the order of the file.
    """

    rows: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __call__(
        self, output: DetectorOutput, targets: Sequence[Targets] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean score of the rows."""
        assert output.selection is not None and output.selection.raw_scores is not None
        return output.selection.raw_scores.gather(1, self.rows).sigmoid().mean(), {}


def _compare_sampling(
    comparison: Comparison, case: OfficialCase, run: OfficialRun, selection: TokenSelection
) -> None:
    """Compares scores, the polled tokens, the sequence and the regularisation."""
    arrays, tokens = case.arrays, run.output.tokens
    kept, sequence = selection.layers[0], selection.sequence
    assert sequence is not None and selection.raw_scores is not None
    scores = selection.raw_scores.sigmoid()
    comparison.close("mid/score_sigmoid", scores, arrays["mid/score_sigmoid"])
    normed = F.layer_norm(tokens.features, tokens.features.shape[-1:])
    comparison.close("mid/norm_feature", normed, arrays["mid/norm_feature"].swapaxes(0, 1))
    comparison.same("mid/sample_lens", kept.kept_counts, arrays["mid/sample_lens"])
    comparison.same("mid/n_valid", tokens.valid_counts, arrays["mid/n_valid"])
    for image, count in enumerate(kept.kept_counts):
        own, wanted = kept.kept_indices[image], arrays["mid/sampler/topk_index"][image]
        comparison.same("mid/sampler/topk_index", own[:count], wanted[:count])
    mask = sequence.padding_mask
    if mask is None:
        mask = sequence.features.new_zeros(sequence.features.shape[:2]).bool()
    comparison.same("mid/sampler/mask", mask, arrays["mid/sampler/mask"])
    read = ~mask
    for name, rows in (("src", sequence.features), ("pos", sequence.position)):
        wanted = arrays[f"mid/sampler/{name}"].swapaxes(0, 1)[read.numpy()]
        comparison.close(f"mid/sampler/{name}", rows[read], wanted)
    polled = kept.gather(selection.raw_scores).sigmoid()
    own_mean = polled[kept.own_rows()].mean()
    comparison.close("mid/reg_valid_selected_only", own_mean, arrays["mid/reg_valid_selected_only"])


def _compare_layers(
    comparison: Comparison, case: OfficialCase, run: OfficialRun, selection: TokenSelection
) -> None:
    """Compares encoder layers where there is no padding, decoder layers and attention maps."""
    arrays, heads = case.arrays, case.setting("H")
    read = ~arrays["mid/sampler/mask"]

    def batch_first(name: str) -> Array:
        return arrays[name].swapaxes(0, 1)

    for index in range(case.setting("NE")):
        rows: Tensor
        (rows,) = run.hooked[f"encoder.layers.{index}"]
        name = f"mid/enc_layer{index}"
        comparison.close(name, rows.detach().numpy()[read], batch_first(name)[read])
    for index in range(case.setting("ND")):
        ((rows, attention),) = run.hooked[f"decoder.layers.{index}"]
        comparison.close(f"mid/dec_layer{index}", rows, batch_first(f"mid/dec_layer{index}"))
        name = f"mid/dec_layer{index}/cross_attn_w_headavg"
        comparison.close(name, attention / heads, arrays[name])
    comparison.close("mid/hs", run.hooked["decoder.norm"], arrays["mid/hs"])
