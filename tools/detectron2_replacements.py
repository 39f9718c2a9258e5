"""The changes that let Detectron2 0.6's Python files run with current torch, Pillow and numpy.

``tools/install_detectron2.py`` applies them to the unpacked source package. Each one must match
exactly as often as it says, so that an unexpected source fails loudly instead of half changed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class InstallError(RuntimeError):
    """Says in one sentence why Detectron2 cannot be installed, and what to do."""


class Replacement(NamedTuple):
    """One change of one file: ``pattern`` must match exactly ``times`` times."""

    path: str
    pattern: str
    new: str
    times: int


_IMPORT_OPS = r"^from detectron2 import _C$"
_OPTIONAL_OPS = (
    "try:\n"
    "    from detectron2 import _C\n"
    "except ImportError:  # this installation has no compiled operators\n"
    "    _C = None"
)
_NUMPY_ALIAS = r"\bnp\.(bool|float|int|str)\b"  # not np.int64, not np.float32

REPLACEMENTS = (
    # Pillow 10 dropped the old name.
    Replacement(
        "detectron2/data/transforms/transform.py", r"\bImage\.LINEAR\b", "Image.BILINEAR", 1
    ),
    # numpy 1.24 dropped its aliases of the builtins (2.0 brought two back, as other types).
    Replacement("detectron2/data/build.py", _NUMPY_ALIAS, r"\1", 2),
    Replacement("detectron2/data/datasets/pascal_voc.py", _NUMPY_ALIAS, r"\1", 1),
    Replacement("detectron2/evaluation/pascal_voc_evaluation.py", _NUMPY_ALIAS, r"\1", 2),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", _NUMPY_ALIAS, r"\1", 7),
    Replacement("detectron2/structures/masks.py", _NUMPY_ALIAS, r"\1", 3),
    Replacement("detectron2/utils/video_visualizer.py", _NUMPY_ALIAS, r"\1", 1),
    Replacement("detectron2/utils/visualizer.py", _NUMPY_ALIAS, r"\1", 3),
    # The compiled operators serve rotated boxes and deformable convolutions only.
    Replacement("detectron2/layers/deform_conv.py", _IMPORT_OPS, _OPTIONAL_OPS, 1),
    Replacement("detectron2/layers/roi_align_rotated.py", _IMPORT_OPS, _OPTIONAL_OPS, 1),
    Replacement("detectron2/layers/rotated_boxes.py", _IMPORT_OPS, _OPTIONAL_OPS, 1),
    Replacement(
        "detectron2/evaluation/coco_evaluation.py",
        r"^from detectron2\.evaluation\.fast_eval_api import COCOeval_opt$",
        "try:\n"
        "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:  # compiled; pycocotools gives the same numbers\n"
        "    COCOeval_opt = COCOeval",
        1,
    ),
    # setuptools 82 dropped pkg_resources.
    Replacement("detectron2/model_zoo/model_zoo.py", r"^import pkg_resources\n", "", 1),
    Replacement(
        "detectron2/model_zoo/model_zoo.py",
        r"pkg_resources\.resource_filename\(\s*\"detectron2\.model_zoo\","
        r" os\.path\.join\(\"configs\", config_path\)\s*\)",
        'os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)',
        1,
    ),
)


def apply_replacements(source: Path, replacements: tuple[Replacement, ...] = REPLACEMENTS) -> None:
    """Changes the files of an unpacked source tree.

    Args:
        source: folder that holds ``detectron2/``.
        replacements: what to change; paths are relative to ``source``.

    Raises:
        InstallError: a file is missing, or a pattern did not match as often as it must.
    """
    for path, pattern, new, times in replacements:
        file = source / path
        if not file.is_file():
            raise InstallError(f"{path}: missing in the source package; expected {pattern!r} in it")
        text, found = re.subn(pattern, new, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if found != times:
            raise InstallError(f"{path}: expected {pattern!r} {times} time(s), found {found}")
        file.write_text(text, encoding="utf-8")
