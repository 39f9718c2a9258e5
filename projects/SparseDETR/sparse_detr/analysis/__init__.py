"""What a detector costs: multiply-adds of each of its parts."""

from .conventions import HONEST, RELEASED, FlopConvention
from .flop_count import FlopCount, count_flops

__all__ = ["HONEST", "RELEASED", "FlopConvention", "FlopCount", "count_flops"]
