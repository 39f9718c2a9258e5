"""Reference vectors of DETR and its relatives, one file per case, and what all of them hold alike.

A file holds the settings ``cfg/``, fake backbone maps and targets ``input/``, weights ``weight/``
and their gradients ``grad/`` by released key, and what the released code made of them: ``mid/``,
``out/``, ``match/``, ``loss/``, ``post/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall, instantiate
from torch import Tensor, nn

from ..criterion import CriterionOutput
from ..meta_arch import TransformerDetector
from ..structures import DetectorOutput, FeatureMaps, FeatureTokens, Size, Targets
from .comparison import Array, Comparison

_LOSS_NAMES = {"loss_class": "loss_ce", "loss_bbox": "loss_bbox", "loss_giou": "loss_giou"}
# What the released code logs, or works out without need; nobody is taught by it.
_NOT_COMPARED = ("loss/class_error", "loss/cardinality_error")
# Error of what the released code computes in float32 whatever the type of the rest.
_FLOAT32 = 1e-6


@dataclass(frozen=True)
class OfficialCase:
    """The arrays of one file.

    Attributes:
        name: Of the case.
        arrays: By the names of the file.
    """

    name: str
    arrays: Mapping[str, Array]

    @staticmethod
    def read(path: Path) -> OfficialCase:
        """The case of a file."""
        with np.load(path) as file:
            return OfficialCase(path.stem, dict(file))

    def setting(self, name: str) -> Any:
        """A number or text of ``cfg/``."""
        return self.arrays[f"cfg/{name}"].item()

    def under(self, prefix: str) -> dict[str, Array]:
        """The arrays whose names begin with ``prefix``, by the rest of the name."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    @property
    def sizes(self) -> list[Size]:
        """(height, width) of each image, pixels."""
        return [(int(h), int(w)) for h, w in self.arrays["cfg/sizes"]]

    @property
    def padded_size(self) -> Size:
        """(height, width) of the padded images, pixels."""
        height, width = self.arrays["cfg/HW"]
        return int(height), int(width)

    def targets(self) -> list[Targets]:
        """The objects of the images."""
        return [
            Targets(
                torch.from_numpy(self.arrays[f"input/target{b}/labels"]),
                torch.from_numpy(self.arrays[f"input/target{b}/boxes"]),
            )
            for b in range(len(self.sizes))
        ]

    def features(self) -> dict[str, Tensor]:
        """Fake backbone maps by name, with gradient."""
        return {
            name: torch.from_numpy(array).requires_grad_()
            for name, array in self.under("input/").items()
            if name.startswith("feat")
        }


@dataclass
class OfficialRun:
    """What a detector made of a case.

    Attributes:
        features: The inputs, with gradients.
        output: Of the forward pass.
        losses: Of the criterion.
        hooked: Outputs of the modules that were asked for, by their names, in order of the calls.
    """

    features: dict[str, Tensor]
    output: DetectorOutput
    losses: CriterionOutput
    hooked: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _GivenPositions:
    """Positions that are taken from a file instead of being computed."""

    position: Tensor

    def everywhere(self) -> Tensor:
        """(B, N, C)."""
        return self.position


def built_model(case: OfficialCase, model: Any) -> TransformerDetector:
    """The detector of a config with the sizes of a case, in float64 and training mode.

    Args:
        case: Gives channels, layers, queries and classes.
        model: Tree of the model; is changed.
    """
    model.released_behaviour = True
    model.backbone = LazyCall(nn.Identity)()
    model.feature_projection.in_channels = {
        f"feat{level}": int(array.shape[1]) for level, array in case.under("input/feat").items()
    }
    model.hidden_dim = case.setting("D")
    # SMCA scores each class on its own and has a logit too many all the same.
    extra = 0 if model.heads.get("no_object_logit") else 1
    model.num_classes = case.setting("C") + extra
    # An encoder of convolutions has no heads to share with the decoder.
    (model.encoder if "num_heads" in model.encoder else model.decoder).num_heads = case.setting("H")
    model.encoder.num_layers = case.setting("NE")
    model.encoder.feedforward_dim = case.setting("FF")
    model.encoder.dropout = 0.0
    model.decoder.num_layers = case.setting("ND")
    model.query_selection.num_queries = case.setting("Q")
    detector: TransformerDetector = instantiate(model)
    return detector.double().train()


def load_weights(
    model: nn.Module, weights: Mapping[str, Array], name_here: Callable[[str], str | None]
) -> dict[str, str]:
    """Loads weights by released key; every parameter must get one.

    Args:
        model: The detector.
        weights: Arrays by released key.
        name_here: Gives the parameter of a key.

    Returns:
        Released key by parameter.

    Raises:
        ValueError: A key without parameter, or a parameter without key.
    """
    parameters = dict(model.named_parameters())
    keys: dict[str, str] = {}
    for key, array in weights.items():
        name = name_here(key)
        if name is None or name not in parameters:
            raise ValueError(f"weights must belong to the model, got {key!r} (here: {name!r})")
        with torch.no_grad():
            parameters[name].copy_(torch.from_numpy(array))
        keys[name] = key
    missing = [name for name in parameters if name not in keys]
    if missing:
        raise ValueError(f"weights must cover the whole model, missing {missing[:5]}")
    return keys


def run_case(
    case: OfficialCase,
    model: TransformerDetector,
    hooked: Sequence[str] = (),
    tokens_of: Callable[[FeatureTokens], FeatureTokens] | None = None,
    strides: tuple[int, ...] | None = None,
) -> OfficialRun:
    """Forward pass, losses and gradients.

    Args:
        case: The case.
        model: With the weights of the case.
        hooked: Modules whose outputs are wanted.
        tokens_of: Changes the tokens before they are used; see :func:`with_official_positions`.
        strides: Of the levels, where the file does not tell.
    """
    assert model.criterion is not None
    features, targets = case.features(), case.targets()
    maps = model.feature_projection(features)
    if "cfg/stride" in case.arrays:
        strides = (case.setting("stride"),)
    derived = model.feature_projection.derived_levels
    merged = FeatureMaps.of_padded_images(maps, case.sizes, case.padded_size, strides, derived)
    tokens: FeatureTokens = model.position_embedding(merged)
    if tokens_of is not None:
        tokens = tokens_of(tokens)
    seen: dict[str, list[Any]] = {name: [] for name in hooked}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda module, inputs, output, name=name: seen[name].append(output)
        )
        for name in hooked
    ]
    output = model.detect(tokens, supervise=True, with_sampling=True)
    for handle in handles:
        handle.remove()
    losses = model.criterion(output, targets, range(len(targets)))
    total = torch.stack(list(losses.weighted().values())).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return OfficialRun(features, output, losses, seen)


def with_official_positions(case: OfficialCase, tokens: FeatureTokens) -> FeatureTokens:
    """Tokens with the positions of the file, which the released code computes in float32.

    Args:
        case: Has ``mid/pos0`` (B, C, H, W).
        tokens: On one level.
    """
    position = torch.from_numpy(case.arrays["mid/pos0"]).double().flatten(2).transpose(1, 2)
    return with_positions(tokens, position)


def with_positions(tokens: FeatureTokens, position: Tensor) -> FeatureTokens:
    """Tokens with given positions (B, N, C)."""
    return replace(tokens, positions=_GivenPositions(position))  # type: ignore[arg-type]


def compare_tokens(comparison: Comparison, case: OfficialCase, tokens: FeatureTokens) -> None:
    """Compares features, padding and, within float32, computed positions of single-scale tokens."""
    batch, channels, height, width = case.arrays["mid/src_proj"].shape
    maps = tokens.features.transpose(1, 2).reshape(batch, channels, height, width)
    comparison.close("mid/src_proj", maps, case.arrays["mid/src_proj"])
    mask = tokens.padding_mask.reshape(batch, height, width)
    comparison.same("mid/feat_mask0", mask, case.arrays["mid/feat_mask0"])
    position = tokens.position.transpose(1, 2).reshape(batch, channels, height, width)
    comparison.close("mid/pos0", position, case.arrays["mid/pos0"], _FLOAT32)


def compare_run(
    comparison: Comparison,
    case: OfficialCase,
    run: OfficialRun,
    model: TransformerDetector,
    keys: Mapping[str, str],
    tolerances: Mapping[str, float] | None = None,
) -> None:
    """Compares predictions, matches, losses, gradients and detections, all that the file has.

    Args:
        comparison: Takes the differences.
        case: The case.
        run: What the detector made of it.
        model: The detector.
        keys: Of :func:`load_weights`.
        tolerances: Of single arrays, by their names in the file, instead of the case's own.
    """
    got = {
        **_predictions(case, run),
        **_losses(run),
        **_gradients(run, model, keys),
        **_detections(case, run, model),
    }
    for name, value in got.items():
        comparison.close(name, value, case.arrays[name], (tolerances or {}).get(name))
    whole = {**_matches(run), **_labels(case, run, model)}
    for name, value in whole.items():
        comparison.same(name, value, case.arrays[name])
    wanted = ("out/", "match/", "loss/", "loss_weight/", "loss_total", "grad/", "grad_input/")
    missing = [
        name
        for name in case.arrays
        if name.startswith((*wanted, "post/"))
        and not name.startswith(_NOT_COMPARED)
        and name not in got
        and name not in whole
    ]
    comparison.same("arrays of the reference that the run lacks", sorted(missing), [])


def _predictions(case: OfficialCase, run: OfficialRun) -> dict[str, Any]:
    *auxiliary, last = run.output.decoder.predictions
    stages = {"": last, **{f"aux{i}/": p for i, p in enumerate(auxiliary)}}
    found: dict[str, Any] = {}
    for prefix, predictions in stages.items():
        found[f"out/{prefix}pred_logits"] = predictions.logits
        found[f"out/{prefix}pred_boxes"] = predictions.boxes_cxcywh
    return {name: value for name, value in found.items() if name in case.arrays}


def _losses(run: OfficialRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in run.losses.terms.items():
        base = next((b for b in _LOSS_NAMES if name.startswith(b)), None)
        released = name if base is None else _LOSS_NAMES[base] + name[len(base) :]
        found[f"loss/{released}"] = value
        found[f"loss_weight/{released}"] = run.losses.weights[name]
    found["loss_total_weighted"] = torch.stack(list(run.losses.weighted().values())).sum()
    return found


def _gradients(
    run: OfficialRun, model: TransformerDetector, keys: Mapping[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        found[f"grad/{keys[name]}"] = torch.zeros_like(parameter) if gradient is None else gradient
    for name, value in run.features.items():
        found[f"grad_input/{name}"] = value.grad
    return found


def _matches(run: OfficialRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for suffix, matches in run.losses.matches.items():
        stage = f"aux{suffix[1:]}" if suffix else "last"
        for image, (rows, objects) in enumerate(matches):
            found[f"match/{stage}/b{image}/query"] = rows
            found[f"match/{stage}/b{image}/target"] = objects
    # The file holds the first and the last layer only.
    return {name: value for name, value in found.items() if name.startswith(_MATCHED_STAGES)}


_MATCHED_STAGES = ("match/last/", "match/aux0/")


def _found(case: OfficialCase, run: OfficialRun, model: TransformerDetector) -> list[Any]:
    return model.postprocess.select(run.output.decoder.predictions[-1], case.sizes)


def _order(case: OfficialCase, image: int, found: Any) -> Tensor:
    """The rows of the detections in the order of the file: best first, or by query."""
    scores = case.arrays[f"post/b{image}/scores"]
    if (np.diff(scores) <= 0).all():
        return torch.arange(len(found.scores))
    return torch.argsort(found.queries)


def _detections(case: OfficialCase, run: OfficialRun, model: TransformerDetector) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for image, found in enumerate(_found(case, run, model)):
        if f"post/b{image}/scores" in case.arrays:
            order = _order(case, image, found)
            numbers[f"post/b{image}/scores"] = found.scores[order]
            numbers[f"post/b{image}/boxes"] = found.boxes_xyxy[order]
    return numbers


def _labels(case: OfficialCase, run: OfficialRun, model: TransformerDetector) -> dict[str, Any]:
    return {
        f"post/b{image}/labels": found.classes[_order(case, image, found)]
        for image, found in enumerate(_found(case, run, model))
        if f"post/b{image}/scores" in case.arrays
    }
