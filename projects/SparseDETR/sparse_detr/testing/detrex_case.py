"""Small cases of DINO and of what is built on it: model, run and comparison.

Reference vectors ``X.weights.npz``, ``X.fwd_dn.npz`` or ``X.fwd_nodn.npz`` with gradients
``X.grads_*.npz``, and ``X.eval.npz``; names of weights are detrex's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall, instantiate
from torch import Tensor, nn

from ..checkpoint.key_table import KeyTable
from ..config.loading import load_config
from ..criterion import CriterionOutput
from ..layers.boxes import xyxy_to_cxcywh
from ..meta_arch import TransformerDetector
from ..query_selection.denoising import ContrastiveDenoising, DenoisingNoise
from ..structures import DetectorOutput, FeatureMaps, FeatureTokens, Targets
from .comparison import Array, Comparison

Arrays = Mapping[str, Array]

# detrex keeps detections in float32.
_FLOAT32_PIXELS = 1e-6
_RELEASED_LOSSES = {"loss_foreground": "select_loss"}


def loaded(path: Path) -> dict[str, Array]:
    """All arrays of a file."""
    with np.load(path) as file:
        return dict(file)


def small_config(meta: Mapping[str, Any], name: str) -> Any:
    """The config of a case under the released-behaviour preset, without backbone.

    Args:
        meta: Hyper-parameters of the case.
        name: Of the file in ``configs/models``.
    """
    config = load_config(f"models/{name}")
    model = config.model
    model.released_behaviour = True
    model.backbone = LazyCall(nn.Identity)()
    model.feature_projection.in_channels = {
        f"res{level + 3}": channels for level, channels in enumerate(meta["chans"])
    }
    model.feature_projection.num_groups = meta["groups"]
    model.position_embedding.temperature = float(meta["temperature"])
    model.position_embedding.offset = meta["offset"]
    model.hidden_dim = meta["D"]
    model.num_classes = meta["classes"]
    model.encoder.num_heads = meta["heads"]
    model.encoder.num_layers = meta["enc"]
    model.encoder.feedforward_dim = meta["ffn"]
    model.decoder.num_layers = meta["dec"]
    model.query_selection.num_queries = meta["nq"]
    denoising = model.query_selection.denoising
    denoising.denoising_number = meta["dn_number"]
    denoising.label_noise = meta["dn_label_noise"]
    denoising.box_noise = meta["dn_box_noise"]
    return config


def small_detector(config: Any, weights: Arrays, keys: KeyTable) -> TransformerDetector:
    """The detector of a case in float64 with the weights of the file.

    Args:
        config: Of :func:`small_config`.
        weights: Arrays by released key.
        keys: Names of the weights.

    Raises:
        ValueError: A key without parameter, or a parameter without key.
    """
    model: TransformerDetector = instantiate(config.model)
    model = model.double().train()
    renamed = {keys.here(key) or key: torch.from_numpy(value) for key, value in weights.items()}
    wrong = model.load_state_dict(renamed, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise ValueError(
            f"weights must be those of the model, missing {wrong.missing_keys[:5]}, unknown "
            f"{wrong.unexpected_keys[:5]}"
        )
    return model


@dataclass
class Watched:
    """What the layers of a run read and gave.

    Attributes:
        encoder: (B, N or K, C) after each encoder layer.
        decoder: (B, P + Q, C) after each decoder layer and the shared norm.
        references: (B, P + Q, L, 4) that each decoder layer read.
    """

    encoder: list[Tensor] = field(default_factory=list)
    decoder: list[Tensor] = field(default_factory=list)
    references: list[Tensor] = field(default_factory=list)

    def watch(self, model: TransformerDetector) -> None:
        """Notes every pass through the layers of a model."""
        assert model.decoder.norm is not None
        model.decoder.norm.register_forward_hook(lambda m, a, output: self.decoder.append(output))
        for layer in model.encoder.layers:
            layer.register_forward_hook(lambda m, a, output: self.encoder.append(output))
        for layer in model.decoder.layers:
            layer.register_forward_pre_hook(lambda m, args: self.references.append(args[2]))


@dataclass
class DetrexRun:
    """A run of a case.

    Attributes:
        model: The detector.
        maps: The inputs, with their gradients.
        tokens: The tokens.
        output: What the detector gave.
        watched: What its layers gave.
        losses: Loss terms; None in evaluation.
    """

    model: TransformerDetector
    maps: dict[str, Tensor]
    tokens: FeatureTokens
    output: DetectorOutput
    watched: Watched
    losses: CriterionOutput | None = None


def run(model: TransformerDetector, golden: Arrays, with_targets: bool) -> DetrexRun:
    """Runs a case; in training mode with losses and gradients.

    Args:
        model: In training or evaluation mode.
        golden: Inputs and, with targets, noise.
        with_targets: Whether there are denoising queries.
    """
    maps = {
        name: torch.from_numpy(golden[f"in.{name}"]).clone().requires_grad_()
        for name in ("res3", "res4", "res5")
    }
    sizes = [(int(height), int(width)) for height, width in golden["in.image_sizes"]]
    height, width = (int(length) for length in golden["in.padded_hw"])
    levels = model.feature_projection(maps)
    tokens: FeatureTokens = model.position_embedding(
        FeatureMaps.of_padded_images(levels, sizes, (height, width), (8, 16, 32, 64))
    )
    watched = Watched()
    watched.watch(model)
    if not model.training:
        return DetrexRun(model, maps, tokens, model.detect(tokens), watched)
    targets = targets_in(golden)
    if with_targets:
        denoising = model.query_selection.denoising
        assert isinstance(denoising, ContrastiveDenoising)
        denoising.noise = noise_of(golden)
    criterion = model.criterion
    assert criterion is not None
    output = model.detect(
        tokens,
        supervise=True,
        with_sampling=criterion.reads_attention,
        targets=targets if with_targets else None,
    )
    losses = criterion(output, targets, range(len(targets)))
    total = torch.stack(list(losses.weighted().values())).sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return DetrexRun(model, maps, tokens, output, watched, losses)


def targets_in(golden: Arrays) -> list[Targets]:
    """Objects of the images of a case, in float64."""
    targets = []
    for image, (height, width) in enumerate(golden["in.image_sizes"].tolist()):
        boxes = torch.from_numpy(golden[f"in.gt_boxes.{image}"]).view(-1, 4)
        boxes = xyxy_to_cxcywh(boxes / boxes.new_tensor([width, height, width, height]))
        targets.append(Targets(torch.from_numpy(golden[f"in.gt_labels.{image}"]), boxes))
    return targets


def noise_of(golden: Arrays, prefix: str = "") -> Callable[..., DenoisingNoise]:
    """A source that gives the noise of a file.

    Args:
        golden: Arrays ``<prefix>noise.*``.
        prefix: In front of their names.
    """
    names = ("label_p", "new_label", "sign01", "part")
    arrays = [torch.from_numpy(np.asarray(golden[f"{prefix}noise.{name}"])) for name in names]
    label_chance, new_label, sign, part = arrays

    def draw(rows: int, num_classes: int, chance: float, like: Tensor) -> DenoisingNoise:
        assert len(label_chance) == rows
        return DenoisingNoise(label_chance < chance, new_label, 2 * sign.to(like) - 1, part)

    return draw


def compare_run(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    """Compares what DINO's parts gave, and the losses.

    Args:
        comparison: Takes the differences.
        found: The run.
        golden: Reference arrays.
    """
    _compare_tokens(comparison, found, golden)
    _compare_queries(comparison, found, golden)
    _compare_decoder(comparison, found, golden)
    if found.losses is not None:
        _compare_losses(comparison, found.losses, golden)


def _compare_tokens(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    tokens = found.tokens
    if "enc.memory" not in golden:
        return
    position = tokens.positions.tables.encoding(None).expand(len(tokens.features), -1, -1)
    start = 0
    for level, (height, width) in enumerate(tokens.spatial_shapes):
        part = slice(start, start + height * width)
        for name, values in (("feat", tokens.features), ("pos", position)):
            expected = golden[f"{name}.{level}"]
            got = values[:, part].transpose(1, 2).reshape(expected.shape)
            comparison.close(f"{name}.{level}", got, expected)
        start = part.stop
    comparison.same("mask_flat", tokens.padding_mask, golden["mask_flat"])
    comparison.same("spatial_shapes", tokens.spatial_shapes, golden["spatial_shapes"])
    comparison.same("level_start_index", tokens.level_start_index, golden["level_start_index"])
    comparison.close("valid_ratios", tokens.valid_ratios, golden["valid_ratios"])
    comparison.close("enc.ref_points", tokens.reference_points(), golden["enc.ref_points"])


def _compare_queries(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    queries, grid = found.output.queries, found.tokens.geometry.proposals
    comparison.close("two_stage.proposals_unact", grid[0], golden["two_stage.proposals_unact"])
    comparison.same("two_stage.invalid", ~grid[1], golden["two_stage.invalid"])
    comparison.same("two_stage.topk_idx", queries.token_indices, golden["two_stage.topk_idx"])
    comparison.close("dec.query0", queries.content, golden["dec.query0"])
    comparison.close("dec.ref0", queries.reference_points, golden["dec.ref0"])
    if queries.first_stage is not None:
        comparison.close("out.enc_logits", queries.first_stage.logits, golden["out.enc_logits"])
        boxes = queries.first_stage.boxes_cxcywh
        comparison.close("out.enc_boxes", boxes, golden["out.enc_boxes"])
    rows = queries.denoising
    if rows is None:
        return
    comparison.same("dn.groups", rows.groups, golden["dn.groups"])
    comparison.same("dn.single_padding", 2 * rows.slots, golden["dn.single_padding"])
    blocked = ~rows.visible(queries.content.shape[1] - rows.rows, queries.content.device)
    comparison.same("dn.attn_mask", blocked, golden["dn.attn_mask"])
    comparison.close("dn.query_label", queries.content[:, : rows.rows], golden["dn.query_label"])


def _compare_decoder(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    watched, decoded = found.watched, found.output.decoder
    states = golden["dec.inter_states"]
    comparison.close("dec.inter_states", watched.decoder, states[-len(watched.decoder) :])
    scale = found.tokens.valid_ratios.repeat(1, 1, 2)[:, None].numpy()
    for layer, reference in enumerate(watched.references[1:]):
        expected = golden["dec.inter_refs"][layer][:, :, None] * scale
        comparison.close(f"dec.inter_refs.{layer}", reference, expected)
    for name, stages in (("out", decoded.predictions), ("dn", decoded.denoising)):
        if stages and f"{name}.pred_logits" in golden:
            logits, boxes = [s.logits for s in stages], [s.boxes_cxcywh for s in stages]
            comparison.close(f"{name}.pred_logits", logits, golden[f"{name}.pred_logits"])
            comparison.close(f"{name}.pred_boxes", boxes, golden[f"{name}.pred_boxes"])


def _compare_losses(comparison: Comparison, losses: CriterionOutput, golden: Arrays) -> None:
    weighted = losses.weighted()
    names = {name: _RELEASED_LOSSES.get(name, name) for name in weighted}
    for name, released in names.items():
        term = losses.terms[name]
        comparison.close(f"loss_unweighted.{name}", term, golden[f"loss_unweighted.{released}"])
        comparison.close(f"loss.{name}", weighted[name], golden[f"loss.{released}"])
    total = torch.stack(list(weighted.values())).sum()
    comparison.close("loss.total", total, golden["loss.total"])
    known = {f"loss.{name}" for name in names.values()} | {"loss.total"}
    for name in sorted(k for k in golden if k.startswith("loss.") and k not in known):
        # Without denoising queries the released code counts their losses as zero.
        comparison.close(name, 0.0, golden[name])
    for suffix, matches in losses.matches.items():
        if suffix.startswith("_dn"):
            continue
        stage = {"": "final", "_enc": "enc"}.get(suffix, f"aux{suffix[1:]}")
        for image, match in enumerate(matches):
            expected = golden[f"match.{stage}.{image}"]
            comparison.same(f"match.{stage}.{image}", torch.stack(match), expected)


def compare_gradients(
    comparison: Comparison, found: DetrexRun, golden: Arrays, keys: KeyTable
) -> None:
    """Compares the gradients of all weights and of the inputs.

    Args:
        comparison: Takes the differences.
        found: The run, after its backward pass.
        golden: Arrays ``grad.<key>`` and ``grad_in.<map>``.
        keys: Names of the weights.
    """
    got = {}
    for name, parameter in found.model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        got[f"grad.{keys.released(name)}"] = gradient
    for name, value in found.maps.items():
        got[f"grad_in.{name}"] = torch.zeros_like(value) if value.grad is None else value.grad
    for key, gradient in got.items():
        comparison.close(key, gradient, golden.get(key, np.zeros(tuple(gradient.shape))))
    comparison.same("gradients that the run lacks", sorted(set(golden) - set(got)), [])


def compare_detections(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    """Compares the detections of an evaluation."""
    sizes = [(int(height), int(width)) for height, width in golden["in.image_sizes"]]
    for image, instances in enumerate(
        found.model.postprocess(found.output.decoder.predictions[-1], sizes)
    ):
        boxes = instances.pred_boxes.tensor
        comparison.close(f"eval.{image}.scores", instances.scores, golden[f"eval.{image}.scores"])
        comparison.same(
            f"eval.{image}.classes", instances.pred_classes, golden[f"eval.{image}.classes"]
        )
        comparison.close(
            f"eval.{image}.boxes", boxes, golden[f"eval.{image}.boxes"], _FLOAT32_PIXELS
        )


Extra = Callable[[Comparison, DetrexRun, Arrays], None]


def run_training_case(
    folder: Path, name: str, kind: str, model: TransformerDetector, keys: KeyTable, extra: Extra
) -> Comparison:
    """Compares forward, losses and gradients of one training step.

    Args:
        folder: Of the reference vectors.
        name: Of the case.
        kind: ``dn`` or ``nodn``.
        model: Of :func:`small_detector`.
        keys: Names of the weights.
        extra: Compares what the system adds to DINO.
    """
    golden = loaded(folder / f"{name}.fwd_{kind}.npz")
    comparison = Comparison(f"{name}.{kind}")
    found = run(model, golden, kind == "dn")
    compare_run(comparison, found, golden)
    extra(comparison, found, golden)
    compare_gradients(comparison, found, loaded(folder / f"{name}.grads_{kind}.npz"), keys)
    return comparison


def run_evaluation_case(
    folder: Path, name: str, model: TransformerDetector, extra: Extra
) -> Comparison:
    """Compares forward and detections of an evaluation; arguments as for training."""
    golden = loaded(folder / f"{name}.eval.npz")
    comparison = Comparison(f"{name}.eval")
    with torch.no_grad():
        found = run(model.eval(), golden, False)
        compare_run(comparison, found, golden)
        extra(comparison, found, golden)
        compare_detections(comparison, found, golden)
    return comparison


def meta_of(path: Path) -> dict[str, Any]:
    """Hyper-parameters of a case."""
    with np.load(path) as file:
        meta: dict[str, Any] = json.loads(str(file["meta_json"]))
    return meta
