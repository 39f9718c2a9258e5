"""Counts of whole detectors: against hand counts, another counter and the released figures."""

from __future__ import annotations

import functools

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from builders import batch, small_detector
from full_size import released_model
from sparse_detr.analysis import HONEST, RELEASED, FlopCount, count_flops
from sparse_detr.analysis.conventions import RELEASED_AS_BUILT
from sparse_detr.inference import optimize_for_inference
from sparse_detr.layers import backend
from sparse_detr.layers.deformable_attention import MultiScaleDeformableAttention
from sparse_detr.meta_arch import TransformerDetector

SIZE = (64, 96)
# The small detector on an image of that size.
CHANNELS, HEADS, HEAD_CHANNELS, WIDTH, QUERIES = 32, 4, 8, 48, 10
TOKENS = 9 * 13 + 5 * 7 + 3 * 4 + 2 * 2
KEPT = 51  # int(168 * 0.3) + 1
SAMPLES = HEADS * 4 * 4  # of one query: heads, levels, points

native = pytest.mark.skipif(
    backend.backend_for("cpu") != "native", reason="the operators are not compiled"
)


@functools.cache
def small_count(
    system: str = "sparse_detr",
    project_after_sampling: bool | None = None,
    keep_ratio: float | None = None,
) -> FlopCount:
    detector = small_detector(system)
    return count_flops(detector, SIZE, keep_ratio, HONEST, project_after_sampling)


def attention_by_hand(rows: int, samples_first: bool) -> int:
    """One deformable attention of the small detector with `rows` queries."""
    layers = rows * CHANNELS * (2 * SAMPLES + SAMPLES)  # offsets, attention logits
    output = rows * CHANNELS * CHANNELS
    if samples_first:
        sampling = rows * SAMPLES * (4 * CHANNELS + 12)
        projection = rows * HEADS * HEAD_CHANNELS * (CHANNELS + 1)
    else:
        sampling = rows * SAMPLES * (4 * HEAD_CHANNELS + 12)
        projection = TOKENS * CHANNELS * CHANNELS
    return layers + sampling + projection + output


def feed_forward_by_hand(rows: int, norms: int) -> int:
    """Two linear layers, and norms at fvcore's 5 per element."""
    return rows * CHANNELS * WIDTH * 2 + norms * 5 * rows * CHANNELS


def test_the_hand_counts_are_of_this_detector() -> None:
    detector = small_detector()
    with torch.no_grad():
        tokens = detector.extract_tokens(detector.preprocess(batch([SIZE])))
        output = detector.detect(tokens)
    assert tokens.features.shape == (1, TOKENS, CHANNELS) and TOKENS == 168
    assert output.selection is not None
    assert output.selection.for_layer(0).kept_counts == (KEPT,)
    assert output.queries.content.shape[1] == QUERIES


@pytest.mark.parametrize("samples_first", [False, pytest.param(True, marks=native)])
def test_an_encoder_layer_counts_as_by_hand(samples_first: bool) -> None:
    count = small_count(project_after_sampling=samples_first)
    expected = attention_by_hand(KEPT, samples_first) + feed_forward_by_hand(KEPT, norms=2)
    assert count.by_module["encoder.layers.0"] == expected
    assert count.by_module["encoder"] == 3 * expected


@pytest.mark.parametrize("samples_first", [False, pytest.param(True, marks=native)])
def test_a_decoder_layer_counts_as_by_hand(samples_first: bool) -> None:
    count = small_count(project_after_sampling=samples_first)
    projections = 4 * QUERIES * CHANNELS * CHANNELS  # query, key, value, output
    self_attention = projections + 2 * QUERIES * QUERIES * CHANNELS
    expected = (
        self_attention
        + attention_by_hand(QUERIES, samples_first)
        + feed_forward_by_hand(QUERIES, norms=3)
    )
    assert count.by_module["decoder.layers.0"] == expected
    assert count.by_part["decoder self-attention"] == 2 * self_attention


def test_the_parts_around_the_transformer_count_as_by_hand() -> None:
    parts = small_count().by_part
    # The linear layer runs on all features for the score and on the kept rows for the first stage;
    # the norm on all tokens for both, and on the kept rows.
    norms = 2 * TOKENS + KEPT
    projection = (TOKENS + KEPT) * CHANNELS * CHANNELS + norms * 5 * CHANNELS
    assert parts["proposal projection"] == projection
    # Rows and columns of the levels and of the padding, and twice the levels, half the channels.
    positions = (9 + 5 + 3 + 2 + 1) + (13 + 7 + 4 + 2 + 1) + 2 * 4
    scoring = 5 * 32 + 32 * 32 + 16 * 16 + 16 * 8 + 8
    of_the_mean = 16 * 16
    assert parts["token scoring"] == TOKENS * scoring + of_the_mean + positions * 16 * 32
    assert parts["query selection"] == QUERIES * (2 * CHANNELS * CHANNELS + 5 * CHANNELS)
    box_head = 2 * CHANNELS * CHANNELS + CHANNELS * 4
    class_head = CHANNELS * 5
    # Class logits rank all tokens; boxes are computed for the selected ones alone.
    assert parts["first-stage head"] == TOKENS * class_head + QUERIES * box_head
    # One run of each box head; logits of the last layer alone.
    assert parts["decoder heads"] == QUERIES * (2 * box_head + class_head)


@native
def test_the_automatic_order_counts_as_it_runs() -> None:
    def attentions(count: FlopCount) -> tuple[int, int]:
        return count.by_part["encoder attention"], count.by_part["decoder cross-attention"]

    # 51 of 168 tokens are many queries, 10 are few.
    assert attentions(small_count()) == (
        3 * attention_by_hand(KEPT, samples_first=False),
        2 * attention_by_hand(QUERIES, samples_first=True),
    )


@native
def test_the_path_without_compiled_operators_counts_the_same() -> None:
    compiled = small_count(project_after_sampling=False)
    with backend.use_backend("torch"):
        in_torch = count_flops(small_detector(), SIZE, project_after_sampling=False)
    assert in_torch.by_part == compiled.by_part
    assert in_torch.by_module == compiled.by_module


@pytest.mark.parametrize("system", ["sparse_detr", "deformable_detr", "deformable_detr_two_stage"])
def test_parts_add_up_and_nothing_that_computes_is_left_out(system: str) -> None:
    count = small_count(system)
    assert count.total == sum(count.by_operator.values()) == count.by_module[""]
    assert "other" not in count.by_part
    assert count.uncounted == {}


@pytest.mark.parametrize("system", ["sparse_detr", "deformable_detr", "efficient_detr"])
def test_what_runs_is_counted_even_if_no_output_needs_it(system: str) -> None:
    # A trace drops such operators. torch's own counter sees the operators as they run.
    detector = small_detector(system).requires_grad_(False)
    ours = count_flops(detector, SIZE).by_operator
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(batch([SIZE]))
    theirs = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    # That one counts a multiply-add as 2.
    assert 2 * ours["conv"] == theirs[aten.convolution]
    # A linear layer runs as any of these, by the strides of its input.
    assert 2 * ours["linear"] == sum(theirs.get(o, 0) for o in (aten.addmm, aten.mm, aten.bmm))


def test_the_count_grows_with_the_keeping_ratio() -> None:
    totals = [small_count(keep_ratio=ratio).total for ratio in (0.1, 0.3, 0.5, 1.0)]
    assert totals == sorted(set(totals))


def test_counting_leaves_the_detector_as_it_was() -> None:
    detector = small_detector()
    inputs = batch([SIZE])
    with torch.no_grad():
        before = detector(inputs)[0]["instances"]
        count_flops(detector, SIZE, project_after_sampling=False)
        count_flops(detector, SIZE, keep_ratio=0.5, convention=RELEASED)
        after = detector(inputs)[0]["instances"]
    assert torch.equal(before.pred_boxes.tensor, after.pred_boxes.tensor)
    assert torch.equal(before.scores, after.scores)
    assert detector.keep_ratio == 0.3
    assert detector.heads.num_encoder_heads == 2
    for module in detector.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            assert module.project_after_sampling is None


def test_a_count_does_not_depend_on_what_ran_before_it() -> None:
    detector = small_detector()
    fresh = count_flops(detector, SIZE)
    with torch.no_grad():
        detector(batch([SIZE, (80, 64)]))
    assert count_flops(detector, SIZE) == fresh == small_count()


def test_a_detector_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        count_flops(small_detector().train(), SIZE)


def test_an_optimised_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="optimised"):
        count_flops(optimize_for_inference(small_detector()), SIZE)


class UnknownBackbone(Backbone):
    """A backbone with a contraction that nothing here knows."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.inner(images)
        return {name: m + torch.cdist(m, m).mean() for name, m in maps.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        shapes: dict[str, ShapeSpec] = self.inner.output_shape()
        return shapes


def test_an_operator_that_nothing_counts_is_named() -> None:
    detector = small_detector()
    detector.backbone = UnknownBackbone(detector.backbone)
    assert count_flops(detector, SIZE).uncounted == {"aten::cdist": 3}


def test_the_released_convention_counts_what_the_released_code_also_computes() -> None:
    detector = small_detector()
    released = count_flops(detector, SIZE, convention=RELEASED).by_part
    projection_and_norm = CHANNELS * CHANNELS + 5 * CHANNELS
    assert released["proposal projection"] == 2 * TOKENS * projection_and_norm
    scoring = 5 * 32 + 32 * 32 + 32 * 16 + 16 * 8 + 8
    assert released["token scoring"] == TOKENS * scoring
    box_head = 2 * CHANNELS * CHANNELS + CHANNELS * 4
    assert released["first-stage head"] == TOKENS * (CHANNELS * 5 + box_head)
    assert released["decoder heads"] == 2 * QUERIES * (CHANNELS * 5 + box_head)
    assert released["decoder box heads, second run"] == 2 * QUERIES * box_head
    assert "encoder auxiliary heads" not in released
    as_built = count_flops(detector, SIZE, convention=RELEASED_AS_BUILT).by_part
    assert as_built.pop("encoder auxiliary heads") == 2 * KEPT * (CHANNELS * 5 + box_head)
    assert as_built == released


def _full_size() -> TransformerDetector:
    detector = released_model("r50_sparse_0.1", auxiliary=False, device="cpu")
    return detector.eval()


def test_the_released_convention_gives_the_released_figure_to_the_digit() -> None:
    total = count_flops(_full_size(), (800, 1066), convention=RELEASED).total
    assert f"{total / 1e9:.1f}" == "105.4"
    # Counted on the released code itself.
    assert f"{total / 1e9:.2f}" == "105.35"


@native
def test_r50_at_rho_10_needs_at_most_92_gflops() -> None:
    assert count_flops(_full_size(), (800, 1066)).total <= 92e9
