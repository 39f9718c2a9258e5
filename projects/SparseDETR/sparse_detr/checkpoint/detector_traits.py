"""Which detector a set of weights is of, read from names and shapes; the config that builds it.

Role in the flow: the converter asks here what it has before it touches a weight. Names and shapes
decide; the arguments of the released training are asked only for what no shape tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from .released_keys import ALIAS_OF_DECODER_BOXES
from .stored_config import StoredConfig

_DEPTHS = {6: 50, 23: 101}
_KEEP_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
_USUAL_QUERIES = 300
_HIDDEN_DIM = 256
_LEVELS = 4


@dataclass(frozen=True)
class DetectorTraits:
    """What tells one released detector from another.

    Attributes:
        backbone: "r50" (a ResNet of any depth) or "swint".
        resnet_depth: Layers of a ResNet; 0 for Swin.
        num_levels: Levels L.
        encoder_layers: Layers E.
        decoder_layers: Layers D.
        feedforward_dim: Hidden channels of the feed-forward networks.
        num_queries: Queries Q.
        num_classes: Rows of the classifiers.
        two_stage: Whether queries come from proposals.
        content_from_memory: Two-stage: queries start from the memory (Efficient DETR).
        class_specific: Two-stage: proposals compete by their best class.
        refines_boxes: Whether decoder layers refine the boxes.
        individual_heads: Whether every stage has weights of its own.
        encoder_auxiliary: Whether encoder layers have heads.
        keep_ratio: Of Sparse DETR; None where no token is scored.
        dilated: Whether the last stage of the ResNet dilates instead of halving the map.
        assumed: What is in neither shapes nor arguments, one sentence each.
    """

    backbone: str
    resnet_depth: int
    num_levels: int
    encoder_layers: int
    decoder_layers: int
    feedforward_dim: int
    num_queries: int
    num_classes: int
    two_stage: bool
    content_from_memory: bool
    class_specific: bool
    refines_boxes: bool
    individual_heads: bool
    encoder_auxiliary: bool
    keep_ratio: float | None
    dilated: bool = False
    assumed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def heads(self) -> int:
        """Heads that a released file lists."""
        auxiliary = self.encoder_layers - 1 if self.encoder_auxiliary else 0
        return self.decoder_layers + int(self.two_stage) + auxiliary

    @property
    def object_stage(self) -> int | None:
        """Stage whose logit 0 means "object": the first one of the original two-stage detector."""
        return self.decoder_layers if self.two_stage and not self.class_specific else None

    @property
    def title(self) -> str:
        """The detector in words."""
        if self.keep_ratio is not None:
            system = f"Sparse DETR, keeping ratio {self.keep_ratio:g}"
        elif self.two_stage:
            kind = "top-k query initialisation" if self.content_from_memory else "two-stage"
            system = f"Deformable DETR, {kind}"
        else:
            system = "Deformable DETR" + (", box refinement" if self.refines_boxes else "")
        if self.num_levels == 1:
            system += ", single scale" + (" (DC5)" if self.dilated else "")
        if self.individual_heads and not self.refines_boxes:
            system += ", individual heads that refine nothing"
        if self.encoder_auxiliary:
            system += ", with auxiliary encoder heads"
        backbone = f"ResNet-{self.resnet_depth}" if self.resnet_depth else "Swin-T"
        return f"{system}; {backbone}; {self.num_classes} class logits"

    def config(self) -> StoredConfig:
        """The shipped config of this detector, and what differs from it."""
        name = self._config_name()
        tree = StoredConfig(name).load()
        wanted: dict[str, Any] = {
            "num_classes": self.num_classes,
            "released_behaviour": True,
            "keep_ratio": self.keep_ratio,
            "encoder.num_layers": self.encoder_layers,
            "encoder.feedforward_dim": self.feedforward_dim,
            "decoder.num_layers": self.decoder_layers,
            "decoder.refine_boxes": self.refines_boxes,
            "query_selection.num_queries": self.num_queries,
            "heads.individual": self.individual_heads,
            "heads.encoder_auxiliary": self.encoder_auxiliary,
        }
        if self.two_stage:
            wanted["query_selection.class_specific"] = self.class_specific
            wanted["query_selection.content_from_memory"] = self.content_from_memory
        if self.resnet_depth:
            wanted["backbone.stages.depth"] = self.resnet_depth
        changes = tuple(
            f"model.{key}={value}"
            for key, value in wanted.items()
            if OmegaConf.select(tree, f"model.{key}") != value
        )
        return StoredConfig(name, changes)

    def _config_name(self) -> str:
        if self.keep_ratio is not None:
            nearest = min(_KEEP_RATIOS, key=lambda ratio: abs(ratio - (self.keep_ratio or 0)))
            percent = round(100 * nearest)
            return f"sparse_detr/sparse_detr_{self.backbone}_rho{percent}_50ep"
        if self.two_stage:
            kind = "topk_queries" if self.content_from_memory else "two_stage"
        elif self.num_levels == 1:
            kind = "single_scale_dc5" if self.dilated else "single_scale"
        else:
            kind = "box_refinement" if self.refines_boxes else "base"
        return f"deformable_detr/deformable_detr_{self.backbone}_{kind}_50ep"


def traits_of(
    weights: Mapping[str, Tensor],
    arguments: Mapping[str, Any] | None = None,
    keep_ratio: float | None = None,
) -> DetectorTraits:
    """Reads the traits of a detector from its released names and shapes.

    Args:
        weights: Tensors by released name.
        arguments: Of the released training; may lack any of them.
        keep_ratio: Takes precedence over the arguments' ``rho``.

    Raises:
        ValueError: Names or shapes are not those of a released detector; the message says which.
    """
    given = arguments or {}
    assumed: list[str] = []
    hidden = _shape(weights, "transformer.level_embed")[1]
    if hidden != _HIDDEN_DIM:
        raise ValueError(
            f"the detector has {hidden} channels, the released ones have {_HIDDEN_DIM}; only these "
            "can be converted"
        )
    resnet = "backbone.0.body.conv1.weight" in weights
    encoder, decoder = _layers(weights, "encoder"), _layers(weights, "decoder")
    two_stage = "transformer.enc_output.weight" in weights
    levels = _levels(weights, single_allowed=resnet and not two_stage)
    from_memory = two_stage and _shape(weights, "transformer.pos_trans.weight")[0] == hidden
    heads = 1 + max(_numbers(weights, r"class_embed\.(\d+)\.weight"), default=-1)
    individual = _heads_differ(weights, heads, given)
    auxiliary = heads - decoder - int(two_stage)
    if auxiliary not in (0, encoder - 1):
        raise ValueError(
            f"there are {heads} heads, expected {decoder + two_stage} or, with auxiliary ones of "
            f"the encoder, {decoder + two_stage + encoder - 1}"
        )
    # A released program without two stages attaches no refinement in one of the two repositories;
    # the file then lacks the copies of the box heads below the decoder.
    refines = two_stage or any(key.startswith(ALIAS_OF_DECODER_BOXES) for key in weights)
    ratio = _keep_ratio(weights, given, keep_ratio, assumed)
    return DetectorTraits(
        backbone="r50" if resnet else "swint",
        resnet_depth=_resnet_depth(weights) if resnet else 0,
        num_levels=levels,
        encoder_layers=encoder,
        decoder_layers=decoder,
        feedforward_dim=_shape(weights, "transformer.encoder.layers.0.linear1.weight")[0],
        num_queries=_queries(weights, two_stage, given, assumed),
        num_classes=_shape(weights, "class_embed.0.weight")[0],
        two_stage=two_stage,
        content_from_memory=from_memory,
        class_specific=bool(given.get("eff_specific_head", from_memory)) and two_stage,
        refines_boxes=refines,
        individual_heads=individual,
        encoder_auxiliary=auxiliary > 0,
        keep_ratio=ratio,
        dilated=_dilated(levels, given, assumed),
        assumed=tuple(assumed),
    )


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Shape of a weight that every such detector has, with two axes at least."""
    if key not in weights:
        raise ValueError(f"the weight {key} is missing, which every released detector has")
    shape = tuple(weights[key].shape)
    if len(shape) < 2:
        raise ValueError(f"the weight {key} has shape {list(shape)}, expected two axes")
    return shape


def _numbers(keys: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def _levels(weights: Mapping[str, Tensor], single_allowed: bool) -> int:
    levels = _shape(weights, "transformer.level_embed")[0]
    if levels != _LEVELS and not (levels == 1 and single_allowed):
        raise ValueError(
            f"the detector has {levels} levels; known are {_LEVELS} and, with a ResNet and without "
            "two stages, 1"
        )
    return levels


def _layers(weights: Mapping[str, Tensor], part: str) -> int:
    numbers = _numbers(weights, rf"transformer\.{part}\.layers\.(\d+)\.")
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError(
            f"the layers of the {part} must be numbered from 0 on, got {sorted(numbers)}"
        )
    return len(numbers)


def _resnet_depth(weights: Mapping[str, Tensor]) -> int:
    blocks = len(_numbers(weights, r"backbone\.0\.body\.layer3\.(\d+)\."))
    if blocks not in _DEPTHS:
        raise ValueError(
            f"the ResNet has {blocks} blocks in layer3, expected 6 (ResNet-50) or 23 (ResNet-101)"
        )
    return _DEPTHS[blocks]


def _heads_differ(weights: Mapping[str, Tensor], heads: int, given: Mapping[str, Any]) -> bool:
    """Whether heads are individual: by the arguments, else whether any two of them differ."""
    if "with_box_refine" in given:
        return bool(given["with_box_refine"] or given.get("use_enc_aux_loss"))
    names = (
        "class_embed.{}.weight",
        "bbox_embed.{}.layers.0.weight",
        "bbox_embed.{}.layers.2.bias",
    )
    return any(
        not weights[first].equal(weights[other])
        for name in names
        for number in range(1, heads)
        if (first := name.format(0)) in weights and (other := name.format(number)) in weights
    )


def _dilated(levels: int, given: Mapping[str, Any], assumed: list[str]) -> bool:
    if levels == 1 and "dilation" not in given:
        assumed.append(
            "the file does not say whether its backbone is dilated (DC5); it is taken for plain"
        )
    return bool(given.get("dilation", False))


def _keep_ratio(
    weights: Mapping[str, Tensor],
    given: Mapping[str, Any],
    wanted: float | None,
    assumed: list[str],
) -> float | None:
    if not any(key.startswith("transformer.enc_mask_predictor.") for key in weights):
        if wanted is not None:
            raise ValueError("a keeping ratio is given, but the detector scores no tokens")
        return None
    if wanted is not None:
        return wanted
    ratio = given.get("rho")
    if isinstance(ratio, float) and 0 < ratio <= 1:
        return ratio
    assumed.append("the file does not say its keeping ratio; 0.1 is stored (see --keep-ratio)")
    return _KEEP_RATIOS[0]


def _queries(
    weights: Mapping[str, Tensor], two_stage: bool, given: Mapping[str, Any], assumed: list[str]
) -> int:
    if not two_stage:
        return _shape(weights, "query_embed.weight")[0]
    count = given.get("num_queries")
    if isinstance(count, int) and count > 0:
        return count
    assumed.append(f"the file does not say its number of queries; {_USUAL_QUERIES} is stored")
    return _USUAL_QUERIES
