"""Cases of DINO: small detectors in training and evaluation, and the denoising queries alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

from ..checkpoint.dino_keys import DETREX
from ..meta_arch import TransformerDetector
from ..query_selection import ContrastiveDenoising
from ..structures import DecoderQueries, Targets
from .comparison import Array, Case, Comparison
from .detrex_case import (
    Arrays,
    DetrexRun,
    loaded,
    meta_of,
    noise_of,
    run_evaluation_case,
    run_training_case,
    small_config,
    small_detector,
)

_KINDS = ("dn", "nodn")


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of DINO in a folder."""
    for path in sorted(folder.glob("dino_*.weights.npz")):
        name = path.name.removesuffix(".weights.npz")
        for kind in _KINDS:
            if (folder / f"{name}.fwd_{kind}.npz").is_file():
                yield f"{name}.{kind}", partial(_training, folder, name, kind)
        if (folder / f"{name}.eval.npz").is_file():
            yield f"{name}.eval", partial(_evaluation, folder, name)
    if (folder / "cdn.npz").is_file():
        yield "cdn", partial(_denoising_cases, folder / "cdn.npz")


def _detector(folder: Path, name: str, kind: str) -> TransformerDetector:
    config = small_config(meta_of(folder / f"{name}.{kind}.npz"), "dino")
    return small_detector(config, loaded(folder / f"{name}.weights.npz"), DETREX)


def _training(folder: Path, name: str, kind: str) -> list[Comparison]:
    model = _detector(folder, name, f"fwd_{kind}")
    return [run_training_case(folder, name, kind, model, DETREX, _compare_encoder)]


def _evaluation(folder: Path, name: str) -> list[Comparison]:
    model = _detector(folder, name, "eval")
    model.postprocess.max_detections = 30
    return [run_evaluation_case(folder, name, model, _compare_encoder)]


def _compare_encoder(comparison: Comparison, found: DetrexRun, golden: Arrays) -> None:
    """Compares the dense encoder, layer by layer."""
    if "enc.memory" not in golden:
        return
    *inner, memory = found.watched.encoder
    for layer, rows in enumerate(inner):
        comparison.close(f"enc.{layer}.tokens_out", rows, golden[f"enc.{layer}.tokens_out"])
    comparison.close("enc.memory", memory, golden["enc.memory"])


def _denoising_cases(path: Path) -> list[Comparison]:
    """The queries that noised objects become, for each layout of objects in a file."""
    golden = loaded(path)
    prefixes = sorted({key.split(".")[0] for key in golden if key.endswith(".counts")})
    return [_denoising_case(prefix, golden) for prefix in prefixes]


def _denoising_case(prefix: str, golden: Mapping[str, Array]) -> Comparison:
    comparison = Comparison(f"cdn.{prefix}")
    weight = torch.from_numpy(golden["label_enc.weight"])
    denoising = ContrastiveDenoising(
        weight.shape[1],
        len(weight),
        denoising_number=int(golden[f"{prefix}.dn_number"]),
        unused_rows_seen=True,
    ).double()
    with torch.no_grad():
        denoising.label_embedding.weight.copy_(weight)
    denoising.noise = noise_of(golden, f"{prefix}.")
    targets = [
        Targets(
            torch.from_numpy(golden[f"{prefix}.gt_labels.{image}"]),
            torch.from_numpy(golden[f"{prefix}.gt_boxes_cxcywh.{image}"]),
        )
        for image in range(len(golden[f"{prefix}.counts"]))
    ]
    rows = denoising.rows_for(targets)
    num_queries = len(golden[f"{prefix}.attn_mask"]) - rows.rows
    matching = weight.new_zeros(len(targets), num_queries, weight.shape[1])
    queries = denoising(
        DecoderQueries(matching, None, matching.new_full((*matching.shape[:2], 4), 0.5)), targets
    )
    comparison.same("groups", rows.groups, golden[f"{prefix}.groups"])
    comparison.same("single_padding", 2 * rows.slots, golden[f"{prefix}.single_padding"])
    content, reference = queries.content[:, : rows.rows], queries.reference_points[:, : rows.rows]
    comparison.close("query_label", content, golden[f"{prefix}.query_label"])
    comparison.close("query_bbox", reference.logit(), golden[f"{prefix}.query_bbox"])
    visible = queries.visible()
    assert visible is not None
    comparison.same("attn_mask", ~visible[0], golden[f"{prefix}.attn_mask"])
    return comparison
