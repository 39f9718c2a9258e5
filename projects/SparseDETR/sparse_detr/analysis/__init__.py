"""What a detector costs: parameters and multiply-adds of each of its parts."""

from .conventions import HONEST, RELEASED, RELEASED_AS_BUILT, FlopConvention
from .detector_cost import DetectorCost
from .encoder_layer_cost import EncoderLayerSize, encoder_layer_flops
from .flop_count import FlopCount, count_flops
from .remembered_cost import inference_cost

__all__ = [
    "HONEST",
    "RELEASED",
    "RELEASED_AS_BUILT",
    "DetectorCost",
    "EncoderLayerSize",
    "FlopConvention",
    "FlopCount",
    "count_flops",
    "encoder_layer_flops",
    "inference_cost",
]
