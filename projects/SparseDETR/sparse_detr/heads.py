"""Detection heads: class logits and boxes for decoder, first stage and auxiliary encoder layers.

Role in the flow: called by decoder, query selection and encoder supervision.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .layers.boxes import inverse_sigmoid
from .layers.initialization import prior_bias
from .layers.mlp import MLP


class DetectionHead(nn.Module):
    """One classifier and one box regressor.

    Args:
        hidden_dim: Channels C.
        num_logits: Class logits, one for "no object" included where there is one.
        reference_eps: References are kept that far from 0 and 1 before boxes are added to them.
        class_prior: Probability that every class starts with; None leaves the classifier as a
            linear layer starts.
        boxes_start_at_references: Start with box offsets of zero; False leaves the regressor as
            linear layers start.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_logits: int,
        reference_eps: float = 1e-5,
        class_prior: float | None = 0.01,
        boxes_start_at_references: bool = True,
    ) -> None:
        super().__init__()
        self.reference_eps = reference_eps
        self.class_embed = nn.Linear(hidden_dim, num_logits)
        self.bbox_embed = MLP(hidden_dim, hidden_dim, 4, num_layers=3)
        if class_prior is not None:
            nn.init.constant_(self.class_embed.bias, prior_bias(class_prior))
        if boxes_start_at_references:
            nn.init.zeros_(self.last_box_layer.weight)
            nn.init.zeros_(self.last_box_layer.bias)

    @property
    def last_box_layer(self) -> nn.Linear:
        """The layer that gives box offsets in logit space."""
        layer = self.bbox_embed.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def logits(self, features: Tensor) -> Tensor:
        """(..., num_logits) from (..., C)."""
        output: Tensor = self.class_embed(features)
        return output

    def boxes(self, features: Tensor, reference_points: Tensor | None) -> Tensor:
        """Boxes around normalised references.

        Args:
            features: (..., C).
            reference_points: (..., 2) centres or (..., 4) boxes cxcywh in [0, 1]; None for boxes
                that start from nothing.

        Returns:
            (..., 4) cxcywh in (0, 1). A centre moves only the centre: width and height are
            absolute then.
        """
        offsets: Tensor = self.bbox_embed(features)
        if reference_points is None:
            return offsets.sigmoid()
        # Refinement adds in logit space; half precision would round the references.
        reference = inverse_sigmoid(reference_points, self.reference_eps)
        if reference.shape[-1] == 2:
            reference = torch.cat([reference, torch.zeros_like(reference)], dim=-1)
        boxes: Tensor = (offsets + reference).sigmoid()
        return boxes

    def boxes_from_logits(self, features: Tensor, box_logits: Tensor) -> Tensor:
        """Boxes around proposals that are given as logits.

        Args:
            features: (..., C).
            box_logits: (..., 4); +inf where there is no proposal.

        Returns:
            (..., 4) cxcywh in (0, 1].
        """
        boxes: Tensor = (self.bbox_embed(features) + box_logits).sigmoid()
        return boxes


class DetectionHeads(nn.Module):
    """The heads of all supervised stages.

    Args:
        hidden_dim: Channels C.
        num_classes: Classes of every head.
        num_decoder_layers: Decoder layers D, each with a head.
        two_stage: Whether the first stage has a head.
        num_encoder_layers: Encoder layers E.
        encoder_auxiliary: Auxiliary heads on encoder layers 0..E-2.
        individual: True gives every stage its own weights, starting as copies of each other;
            False shares one head, as Deformable DETR does without box refinement.
        reference_eps: See :class:`DetectionHead`; Deformable DETR's 1e-5, DINO's 1e-3.
        no_object_logit: A logit for "no object" behind those of the classes, as
            :class:`sparse_detr.class_scores.SoftmaxClasses` wants.
        class_prior: See :class:`DetectionHead`.
        boxes_start_at_references: See :class:`DetectionHead`.

    Source: Sparse DETR, section 3.5 (auxiliary heads); released code for the initialisation.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_classes: int,
        num_decoder_layers: int,
        two_stage: bool,
        num_encoder_layers: int = 0,
        encoder_auxiliary: bool = False,
        individual: bool = True,
        reference_eps: float = 1e-5,
        no_object_logit: bool = False,
        class_prior: float | None = 0.01,
        boxes_start_at_references: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        logits = num_classes + int(no_object_logit)
        first = DetectionHead(
            hidden_dim, logits, reference_eps, class_prior, boxes_start_at_references
        )
        self.num_encoder_heads = max(0, num_encoder_layers - 1) if encoder_auxiliary else 0
        count = num_decoder_layers + int(two_stage) + self.num_encoder_heads
        self.stages = nn.ModuleList(copy.deepcopy(first) for _ in range(count if individual else 1))
        if not two_stage and boxes_start_at_references:
            # Learned queries start from small boxes, not from half the image.
            nn.init.constant_(self._stage(0).last_box_layer.bias[2:], -2.0)
        self.num_classes = num_classes
        self.no_object_logit = no_object_logit
        self.num_decoder_layers = num_decoder_layers
        self.two_stage = two_stage

    def _stage(self, index: int) -> DetectionHead:
        head = self.stages[index if len(self.stages) > 1 else 0]
        assert isinstance(head, DetectionHead)
        return head

    def decoder(self, layer: int) -> DetectionHead:
        """Head of decoder layer ``layer``."""
        return self._stage(layer)

    def first_stage(self) -> DetectionHead:
        """Head of the two-stage query selection.

        Raises:
            ValueError: The heads were built without a first stage.
        """
        if not self.two_stage:
            raise ValueError(
                "two_stage must be True in the heads for a query selection that uses a first stage"
            )
        return self._stage(self.num_decoder_layers)

    def encoder(self, layer: int) -> DetectionHead:
        """Auxiliary head of encoder layer ``layer``."""
        return self._stage(self.num_decoder_layers + int(self.two_stage) + layer)
