"""Writes small cases in the format of the reference vectors, made by this project's own code.

``python -m sparse_detr.testing.make_cases DIR`` made the cases that the suite carries: they keep
the parity checks sharp where no reference vectors of the released implementations are at hand. Make
them again only when the code has just passed those reference vectors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.released_keys import to_released
from .comparison import Array
from .golden_model import load_released, small_model
from .seed_recipe import seeded_tensor
from .small_case_record import record_case

_TWO_STAGE = "--with_box_refine --two_stage"
_KW = {
    "hidden_dim": 32,
    "nheads": 4,
    "enc_layers": 2,
    "dec_layers": 2,
    "dim_feedforward": 40,
    "num_queries": 8,
    "dataset_file": "twenty",
}
CASES: dict[str, dict[str, Any]] = {
    "own_sparse_rho0.4": {
        "flags": f"{_TWO_STAGE} --eff_query_init --eff_specific_head --rho 0.4 --use_enc_aux_loss",
        "seed": 11,
        "sizes": [[64, 96], [40, 112]],
        "channels": [5, 7, 9],
        "kw": _KW,
        "refine_fix": False,
    },
    "own_deformable_bbr": {
        "flags": "--with_box_refine",
        "seed": 12,
        "sizes": [[72, 64], [56, 88]],
        "channels": [5, 7, 9],
        "kw": _KW,
        "refine_fix": True,
    },
}


def case_inputs(meta: Mapping[str, Any]) -> dict[str, Array]:
    """Random feature maps, padding mask and targets of a case, float32 values.

    Args:
        meta: Seed, image sizes and channels.
    """
    generator = np.random.default_rng(meta["seed"])
    sizes = np.asarray(meta["sizes"])
    height, width = sizes.max(0)
    mask = np.ones((len(sizes), height, width), dtype=bool)
    arrays: dict[str, Array] = {"in/image_sizes": sizes, "in/image_mask": mask}
    for index, (h, w) in enumerate(sizes):
        mask[index, :h, :w] = False
        count = 2 + 2 * index
        centre = generator.uniform(0.3, 0.7, (count, 2))
        extent = generator.uniform(0.1, 0.5, (count, 2))
        boxes = np.concatenate([centre, extent], 1).astype(np.float32)
        arrays[f"in/targets{index}/boxes"] = boxes
        arrays[f"in/targets{index}/labels"] = generator.integers(0, 20, count)
    for level, channels in enumerate(meta["channels"]):
        stride = 8 * 2**level
        shape = (len(sizes), channels, -(-height // stride), -(-width // stride))
        arrays[f"in/feat{level}"] = generator.standard_normal(shape).astype(np.float32)
    return arrays


def make_case(folder: Path, name: str, meta: Mapping[str, Any]) -> None:
    """Writes ``<name>.npz`` and ``<name>_grads.npz``."""
    model = small_model(meta)
    weights = {
        key: seeded_tensor(key, parameter.shape, meta["seed"]).astype(np.float32)
        for key, parameter in (
            (str(to_released(name)), parameter) for name, parameter in model.named_parameters()
        )
    }
    load_released(model, weights)
    inputs = case_inputs(meta)
    record = record_case(model, inputs)
    arrays = {
        **inputs,
        **{f"weights/{key}": value for key, value in weights.items()},
        **record.numbers,
        **record.integers,
        "loss_weights_json": np.asarray(json.dumps(record.loss_weights)),
    }
    _save(folder / f"{name}.npz", arrays)
    _save(folder / f"{name}_grads.npz", record.gradients)


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes all cases and their listing, and gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sparse_detr.testing.make_cases")
    parser.add_argument("folder", type=Path, help="folder to write to")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, meta in CASES.items():
        make_case(folder, name, meta)
        print(f"wrote {folder / name}.npz")
    listing = json.dumps(CASES, indent=1)
    (folder / "cases.json").write_text(listing + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
