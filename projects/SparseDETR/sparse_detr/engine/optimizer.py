"""AdamW with the released parameter groups and a batch rule for the learning rates.

Role in the flow: the config's ``optimizer`` node calls :func:`build_adamw` with the built model
and the batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

logger = logging.getLogger(__name__)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)
_OF_NORMS = " norms"

BATCH_RULES: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "linear": lambda ratio: ratio,
    "none": lambda ratio: 1.0,
}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: ``"main"``, ``"backbone"`` or ``"sampling"``; with ``" norms"`` behind it where norms
            are apart.
        learning_rate: Rate after the batch rule.
        parameters: Their names and tensors, in the order of the model.
    """

    name: str
    learning_rate: float
    parameters: tuple[tuple[str, nn.Parameter], ...]

    def split(self, names: frozenset[str], suffix: str) -> list[ParameterGroup]:
        """The group in two: the parameters of other names, and those of these; without empty ones.

        Args:
            names: Of the parameters of the second group.
            suffix: Of its name.
        """
        apart = tuple(entry for entry in self.parameters if entry[0] in names)
        others = tuple(entry for entry in self.parameters if entry[0] not in names)
        groups = [
            ParameterGroup(self.name, self.learning_rate, others),
            ParameterGroup(self.name + suffix, self.learning_rate, apart),
        ]
        return [group for group in groups if group.parameters]

    @property
    def element_count(self) -> int:
        """Number of scalars in the group."""
        return sum(parameter.numel() for _, parameter in self.parameters)


def batch_factor(rule: str, global_batch: int, reference_batch: int) -> float:
    """Gives the factor on every learning rate for a batch of another size.

    Source: the released code multiplies by sqrt(batch / 16); Deformable DETR does not scale.

    Args:
        rule: ``"sqrt"``, ``"linear"`` or ``"none"``.
        global_batch: Images per optimiser step.
        reference_batch: The batch that the configured rates are for.

    Returns:
        The factor, 1.0 at the reference batch.

    Raises:
        ValueError: Unknown rule, or a batch below 1.
    """
    if rule not in BATCH_RULES:
        raise ValueError(f"optimizer.batch_rule is {rule!r}, expected one of {sorted(BATCH_RULES)}")
    if global_batch < 1 or reference_batch < 1:
        raise ValueError(f"batches are {global_batch} and {reference_batch}, expected 1 or more")
    return BATCH_RULES[rule](global_batch / reference_batch)


def group_parameters(
    model: nn.Module,
    lr: float,
    lr_backbone: float,
    sampling_factor: float = 0.1,
    sampling_names: Sequence[str] = ("reference_points", "sampling_offsets"),
) -> list[ParameterGroup]:
    """Gives the trainable parameters of ``model`` sorted into three groups by name.

    Source: released optimiser: a name that contains one of ``sampling_names`` gets ``lr *
    sampling_factor``, else one of the backbone gets ``lr_backbone``, else ``lr``. Shared tensors
    count once, under their first name.

    Args:
        model: The meta-architecture; backbone names start with ``backbone.``.
        lr: Rate of the main group.
        lr_backbone: Rate of the backbone.
        sampling_factor: Factor of the sampling group.
        sampling_names: Parts of names that put a parameter into the sampling group.

    Returns:
        The groups that have parameters, main first.

    Raises:
        ValueError: The model has no trainable parameter.
    """
    members: dict[str, list[tuple[str, nn.Parameter]]] = {
        "main": [],
        "backbone": [],
        "sampling": [],
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if any(part in name for part in sampling_names):
            members["sampling"].append((name, parameter))
        elif name.startswith("backbone."):
            members["backbone"].append((name, parameter))
        else:
            members["main"].append((name, parameter))
    rates = {"main": lr, "backbone": lr_backbone, "sampling": lr * sampling_factor}
    groups = [
        ParameterGroup(name, rates[name], tuple(entries))
        for name, entries in members.items()
        if entries
    ]
    if not groups:
        raise ValueError("the model has no trainable parameter, so there is nothing to optimise")
    return groups


def norm_parameters(model: nn.Module) -> frozenset[str]:
    """Gives the names of the parameters of all norms of a model."""
    return frozenset(
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if isinstance(module, _NORMS)
        for name, _ in module.named_parameters(recurse=False)
    )


def build_adamw(
    model: nn.Module,
    global_batch: int,
    lr: float = 2e-4,
    lr_backbone: float = 2e-5,
    sampling_factor: float = 0.1,
    weight_decay: float = 1e-4,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    batch_rule: str = "sqrt",
    reference_batch: int = 16,
    norm_weight_decay: float | None = None,
) -> torch.optim.AdamW:
    """Gives the optimiser, and logs its groups and how the batch changed the rates.

    Source: released training settings; weight decay applies to every parameter, norms and biases
    included. detrex, which trains DINO, leaves norms without.

    Args:
        model: The meta-architecture, not wrapped for several processes.
        global_batch: Images per optimiser step, over all processes and accumulated micro-batches.
        lr: Rate of the main group at the reference batch.
        lr_backbone: Rate of the backbone at the reference batch.
        sampling_factor: The group of sampling offsets and reference points gets ``lr`` times this.
        weight_decay: Decoupled weight decay.
        betas: Decay of the running moments.
        eps: Added to the denominator.
        batch_rule: ``"sqrt"``, ``"linear"`` or ``"none"``, see :func:`batch_factor`.
        reference_batch: The batch that the rates are for.
        norm_weight_decay: Weight decay of the parameters of norms, which get groups of their own;
            None: like the others.

    Returns:
        AdamW with one group per row of :func:`group_parameters`, named by the key ``name``.

    Raises:
        ValueError: A rate is negative, the rule is unknown, or nothing is trainable.
    """
    for key, rate in (
        ("lr", lr),
        ("lr_backbone", lr_backbone),
        ("sampling_factor", sampling_factor),
    ):
        if rate < 0:
            raise ValueError(f"optimizer.{key} is {rate}, expected 0 or more")
    factor = batch_factor(batch_rule, global_batch, reference_batch)
    groups = group_parameters(model, lr * factor, lr_backbone * factor, sampling_factor)
    if norm_weight_decay is not None:
        norms = norm_parameters(model)
        groups = [part for group in groups for part in group.split(norms, _OF_NORMS)]
    logger.info(
        "Learning rates: rule %r, batch %d against %d, factor %.4g",
        batch_rule,
        global_batch,
        reference_batch,
        factor,
    )
    for group in groups:
        logger.info(
            "  group %-8s lr %.4g: %d tensors, %.3fM parameters",
            group.name,
            group.learning_rate,
            len(group.parameters),
            group.element_count / 1e6,
        )
    return torch.optim.AdamW(
        [
            {
                "params": [tensor for _, tensor in group.parameters],
                "lr": group.learning_rate,
                "name": group.name,
                **({"weight_decay": norm_weight_decay} if group.name.endswith(_OF_NORMS) else {}),
            }
            for group in groups
        ],
        weight_decay=weight_decay,
        betas=(float(betas[0]), float(betas[1])),
        eps=eps,
        # One kernel for all parameters instead of several per parameter.
        fused=True,
    )
