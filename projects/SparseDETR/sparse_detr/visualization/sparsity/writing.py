"""Writes the sparsity of many images: overviews, single panels, and one page for all.

Role in the flow: behind `tools/visualize_sparsity.py`, and for programs that end with pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...engine.checkpoint_file import write_text
from ...meta_arch import TransformerDetector
from ...token_selection import KeepRatioLike
from ..network_input import ground_truth
from ..picture_files import save_picture, unused_name
from ..pictures import Mapper, Record
from .chosen_queries import QueryChoice
from .overview import BoxOptions, overview, single_panels
from .page import sparsity_page
from .page_data import page_data
from .sparsity_view import view_sparsity

PAGE_NAME = "sparsity.html"
PANELS_NAME = "panels"
BEST_THREE = tuple(QueryChoice(rank=rank) for rank in range(3))
_DETECTIONS_OF_PAGE = 12


@dataclass(frozen=True)
class SparsityOptions:
    """What is shown of the sparsity, and written.

    Attributes:
        boxes: How boxes are named, and which are shown.
        keep_ratio: Keeping ratio; None takes the model's own.
        queries: Whose sampling the panels show; the page also holds that of the best detections.
        with_overview: Write one picture per image.
        with_panels: Write every panel as a picture of its own.
        with_page: Write the page.
        title: Heading of the page.
        facts: Shown below it, name and value.
    """

    boxes: BoxOptions = field(default_factory=BoxOptions)
    keep_ratio: KeepRatioLike | None = None
    queries: tuple[QueryChoice, ...] = BEST_THREE
    with_overview: bool = True
    with_panels: bool = True
    with_page: bool = True
    title: str = "Sparsity"
    facts: Mapping[str, str] = field(default_factory=dict)


def write_sparsity(
    model: TransformerDetector,
    mapper: Mapper,
    records: Iterable[Record],
    output_dir: Path,
    options: SparsityOptions,
) -> Iterator[tuple[Path, ...]]:
    """Writes the pictures of one image after the other, then the page.

    ``<image>_sparsity.png`` is the overview, ``panels/<image>/`` holds the panels, and
    ``sparsity.html`` the page.

    Args:
        model: The detector, in evaluation mode.
        mapper: Gives Detectron2's input dict of a record.
        records: Detectron2's data set dictionaries; those with ``annotations`` have ground truth.
        output_dir: Folder to write to; it is made.
        options: What is shown and written.

    Yields:
        The files of each image, as soon as they are written, then the page.

    Raises:
        BadSampleError: An image cannot be read.
        ValueError: A query or the keeping ratio does not fit.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    of_page = tuple(QueryChoice(rank=rank) for rank in range(_DETECTIONS_OF_PAGE))
    used: set[str] = set()
    pages = []
    for record in records:
        sample = mapper(dict(record))
        file = Path(record["file_name"])
        truth = ground_truth(record, sample)
        view = view_sparsity(
            model,
            sample,
            file.name,
            options.queries,
            truth,
            options.keep_ratio,
            of_page if options.with_page else (),
        )
        name = unused_name(file.stem, used)
        written = []
        if options.with_overview:
            picture = overview(view, options.boxes)
            written.append(save_picture(picture, output_dir / f"{name}_sparsity.png"))
        if options.with_panels:
            folder = output_dir / PANELS_NAME / name
            folder.mkdir(parents=True, exist_ok=True)
            for panel, picture in single_panels(view, options.boxes):
                written.append(save_picture(picture, folder / f"{panel}.png"))
        if options.with_page:
            pages.append(page_data(view, options.boxes))
        yield tuple(written)
    if pages:
        page = sparsity_page(options.title, options.facts, pages, options.boxes.score_threshold)
        write_text(page, output_dir / PAGE_NAME)
        yield (output_dir / PAGE_NAME,)
