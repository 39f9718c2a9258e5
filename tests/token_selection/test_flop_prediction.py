"""The predicted GFLOPs are those that are counted, and a budget of them is held and used up."""

import logging

import pytest
import torch
from detectron2.config import instantiate

from builders import batch, small_detector
from sparse_detr.analysis import count_flops
from sparse_detr.config.loading import load_config
from sparse_detr.inference import optimize_for_inference
from sparse_detr.layers import backend
from sparse_detr.token_selection import as_keep_ratio, kept_count
from sparse_detr.token_selection.flop_prediction import FlopPrediction, prediction_of, structure_of
from sparse_detr.token_selection.keep_ratio import FixedCounts

SIZES = [(96, 128), (64, 80)]


def counted(model, size, kept):
    return count_flops(model, size, FixedCounts((kept,))).total


def kept_counts(model, keep_ratio, sizes=SIZES):
    with torch.no_grad():
        tokens = model.extract_tokens(model.preprocess(batch(list(sizes))))
        return model.detect(tokens, keep_ratio).selection.layers[0].kept_counts, tokens


@pytest.mark.parametrize(
    ("order", "size", "counts"),
    # With 310 tokens the automatic order changes at 47.
    [(None, (96, 128), (1, 46, 47)), (True, (70, 101), (3, 90)), (False, (96, 128), (100,))],
)
def test_the_prediction_is_the_count_to_the_digit(order, size, counts):
    model = small_detector(encoder__project_after_sampling=order)
    prediction = FlopPrediction(model)
    prediction.total((64, 80), 1)  # whose cost of a token serves other sizes
    for kept in counts:
        assert prediction.total(size, kept) == counted(model, size, kept)


@pytest.mark.parametrize("config", ["quickstart", "sparse_detr/sparse_detr_swint_rho10_50ep"])
def test_the_prediction_is_the_count_of_real_backbones(config):
    tree = load_config(config).model
    tree.num_classes = 80
    model = instantiate(tree).eval()
    assert FlopPrediction(model).total((96, 150), 20) == counted(model, (96, 150), 20)


def test_the_path_without_compiled_operators_is_predicted_too():
    model = small_detector()
    with backend.use_backend("torch"):
        assert FlopPrediction(model).total((96, 128), 20) == counted(model, (96, 128), 20)


def test_the_count_grows_with_the_kept_tokens():
    prediction = FlopPrediction(small_detector())
    totals = [prediction.total((96, 128), kept) for kept in range(1, 311)]
    assert totals == sorted(set(totals))


@pytest.mark.parametrize("gflops", [0.0045, 0.0125])
def test_a_budget_holds_for_each_image_and_leaves_no_room_for_another_token(gflops):
    model = small_detector()
    counts, tokens = kept_counts(model, f"gflops:{gflops}")
    for size, kept, valid in zip(SIZES, counts, tokens.valid_counts, strict=True):
        assert counted(model, size, kept) <= gflops * 1e9
        assert kept == valid or counted(model, size, kept + 1) > gflops * 1e9


def test_a_budget_keeps_to_its_bounds_and_warns_once_where_the_lowest_does_not_fit(caplog):
    model = small_detector()
    ratio = as_keep_ratio("gflops:0.0011,0.1-0.2")
    with caplog.at_level(logging.WARNING):
        counts, tokens = kept_counts(model, ratio)
        kept_counts(model, ratio)
    assert counts == tuple(kept_count(valid, 0.1) for valid in tokens.valid_counts)
    (record,) = caplog.records
    assert "'gflops:0.0011,0.1-0.2'" in record.message and "lowest bound" in record.message
    counts, tokens = kept_counts(model, "gflops:9,0.1-0.2")
    assert counts == tuple(kept_count(valid, 0.2) for valid in tokens.valid_counts)


def test_a_budget_of_all_tokens_keeps_all_tokens():
    counts, tokens = kept_counts(small_detector(), "gflops:1000")
    assert counts == tokens.valid_counts


def test_count_flops_takes_a_budget_and_finds_that_it_holds():
    model = small_detector()
    total = count_flops(model, SIZES[0], "gflops:0.006").total
    assert 0.0059e9 < total <= 0.006e9


def test_an_optimised_detector_keeps_what_the_detector_does_that_it_was_made_from():
    model = small_detector()
    optimised = optimize_for_inference(model)
    assert kept_counts(optimised, "gflops:0.006")[0] == kept_counts(model, "gflops:0.006")[0]


def test_predicting_changes_neither_the_detector_nor_its_results():
    model, other = small_detector(), small_detector()
    inputs = batch(SIZES)
    with torch.no_grad():
        FlopPrediction(model).total(SIZES[0], 5)
        got = [item["instances"] for item in model(inputs)]
        prediction_of(model).total(SIZES[1], 5)
        again = [item["instances"] for item in model(inputs)]
        expected = [item["instances"] for item in other(inputs)]
    for first, second, third in zip(got, again, expected, strict=True):
        assert torch.equal(first.scores, third.scores)
        assert torch.equal(second.pred_boxes.tensor, third.pred_boxes.tensor)
    assert all(type(parameter) is torch.nn.Parameter for parameter in model.parameters())
    assert model.encoder.layers[0].self_attn.project_after_sampling is None


def test_a_training_detector_is_counted_as_it_predicts_and_stays_in_training():
    model = small_detector().train()
    assert FlopPrediction(model).total(SIZES[0], 30) == FlopPrediction(small_detector()).total(
        SIZES[0], 30
    )
    assert model.training and model.encoder.training


def test_the_structure_has_no_weights_and_no_hooks():
    model = small_detector()
    model.encoder.register_forward_hook(lambda *rest: pytest.fail("a hook of the user ran"))
    structure = structure_of(model)
    assert all(parameter.is_meta for parameter in structure.parameters())
    FlopPrediction(model).total(SIZES[0], 5)


def test_tokens_that_come_from_no_image_are_refused_with_the_way_to_get_some():
    model = small_detector()
    _, tokens = kept_counts(model, 0.3)
    bare = type(tokens)(tokens.features, tokens.positions, tokens.geometry)
    with pytest.raises(ValueError, match=r"needs tokens\.image_sizes, got None"):
        model.detect(bare, "gflops:1")
