"""Looking inside the sparsity: kept tokens, scores, decoder attention and sampling of an image."""

from .chosen_queries import QueryChoice
from .overview import BoxOptions, overview, single_panels
from .page import sparsity_page
from .page_data import page_data
from .sparsity_view import SparsityView, view_sparsity
from .writing import SparsityOptions, write_sparsity

__all__ = [
    "BoxOptions",
    "QueryChoice",
    "SparsityOptions",
    "SparsityView",
    "overview",
    "page_data",
    "single_panels",
    "sparsity_page",
    "view_sparsity",
    "write_sparsity",
]
