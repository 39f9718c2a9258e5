"""What a data set check found: kinds of findings, their counts and the first offenders.

Role in the flow: filled by `checker.py`, printed by `tools/check_dataset.py` and before training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

ERROR, WARNING, INFO = "error", "warning", "info"

KINDS: dict[str, tuple[str, str]] = {
    # Errors: training or evaluation stops, or is silently wrong.
    "no_images": (ERROR, "the data set lists no images"),
    "no_annotations": (ERROR, "no annotation belongs to any listed image"),
    "no_categories": (ERROR, "the data set lists no categories"),
    "type_error": (ERROR, "fields that are missing or of the wrong type (ids must be integers)"),
    "duplicate_image_id": (ERROR, "image ids used more than once"),
    "duplicate_annotation_id": (ERROR, "annotation ids used more than once"),
    "duplicate_category_id": (ERROR, "category ids used more than once"),
    "missing_file": (ERROR, "image files that do not exist"),
    "empty_file": (ERROR, "image files of zero bytes"),
    "corrupt_image": (ERROR, "image files that cannot be decoded"),
    "size_mismatch": (ERROR, "images whose size differs from the annotation file"),
    "exif_mismatch": (ERROR, "images whose annotated size ignores their EXIF rotation"),
    "orphan_annotation": (ERROR, "annotations of images that are not listed"),
    "unknown_category": (ERROR, "annotations of categories that are not listed"),
    "class_out_of_range": (ERROR, "annotations whose class does not fit num_classes"),
    "too_many_categories": (ERROR, "more categories than num_classes"),
    "no_bbox": (ERROR, "annotations without bbox"),
    "bbox_length": (ERROR, "bboxes that are not four numbers"),
    "non_finite_bbox": (ERROR, "bboxes with NaN or infinite numbers"),
    "reversed_bbox": (ERROR, "bboxes with negative width or height"),
    "ignore_flag": (ERROR, "annotations with 'ignore', which Detectron2 does not support"),
    # Warnings: training goes on, but the data loses or hides something.
    "degenerate_bbox": (WARNING, "bboxes of zero width or height (dropped in training)"),
    "outside_image": (WARNING, "bboxes wholly outside their image (dropped in training)"),
    "out_of_image": (WARNING, "bboxes partly outside their image (clipped in training)"),
    "missing_evaluation_field": (
        WARNING,
        "annotations without area or iscrowd (COCO's AP needs them)",
    ),
    "duplicate_bbox": (WARNING, "annotations that repeat another one of the same class"),
    "duplicate_file": (WARNING, "files listed by more than one image"),
    "unusual_mode": (WARNING, "images of more than 8 bits per channel (clipped to 8 bits)"),
    "many_objects": (WARNING, "images with more objects than the model has queries (300)"),
    "shared_with_other": (WARNING, "files that the other split lists as well"),
    # Information.
    "gapped_category_ids": (INFO, "category ids left out of 1..n (mapped to contiguous classes)"),
    "empty_category": (INFO, "categories without annotation"),
    "unannotated_image": (INFO, "images without annotation (kept in training)"),
    "crowd_only_image": (INFO, "images with crowd regions only (no training targets)"),
}
"""Kind -> (severity, what is counted)."""

SKIPPABLE = frozenset(
    [
        "missing_file",
        "empty_file",
        "corrupt_image",
        "size_mismatch",
        "exif_mismatch",
        "no_bbox",
        "bbox_length",
        "non_finite_bbox",
        "reversed_bbox",
    ]
)
"""Errors of single samples, which a training loader with `on_bad_sample="skip"` gets past."""

_EXAMPLES_KEPT = 5


@dataclass
class DatasetReport:
    """Counts and first offenders per kind of finding.

    Attributes:
        name: what was checked.
        num_images: images listed.
        num_annotations: annotations listed.
        num_categories: categories listed; None where the source does not tell.
        num_files_opened: image files that were decoded.
        counts: kind -> number of offenders.
        examples: kind -> the first offenders, in words.
    """

    name: str
    num_images: int = 0
    num_annotations: int = 0
    num_categories: int | None = None
    num_files_opened: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Counts one finding of a kind listed in `KINDS`."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES_KEPT:
            examples.append(example)

    def kinds_of(self, severity: str) -> list[str]:
        """Gives the kinds found of a severity ("error", "warning", "info"), in table order."""
        return [kind for kind in KINDS if KINDS[kind][0] == severity and kind in self.counts]

    @property
    def ok(self) -> bool:
        """Whether no error was found."""
        return not self.kinds_of(ERROR)

    def format(self, severities: tuple[str, ...] = (ERROR, WARNING, INFO)) -> str:
        """Gives the report as text, one line per kind with its first offenders."""
        categories = "?" if self.num_categories is None else str(self.num_categories)
        head = f"{self.name}: {self.num_images} images, {self.num_annotations} annotations, "
        lines = [f"{head}{categories} categories; {self.num_files_opened} image files decoded"]
        for severity in severities:
            for kind in self.kinds_of(severity):
                count, examples = self.counts[kind], self.examples[kind]
                more = ", ..." if count > len(examples) else ""
                lines.append(
                    f"  {severity:7s} {kind}: {count} {KINDS[kind][1]}: {', '.join(examples)}{more}"
                )
        if len(lines) == 1:
            lines.append("  nothing found")
        return "\n".join(lines)

    def raise_if_errors(self, ignoring: Collection[str] = ()) -> None:
        """Raises ValueError with the errors, if there are any.

        Args:
            ignoring: kinds that do not count, `SKIPPABLE` for a loader that skips bad samples.
        """
        if set(self.kinds_of(ERROR)) - set(ignoring):
            raise ValueError(
                f"The data set has errors that training would trip over.\n{self.format((ERROR,))}"
            )
