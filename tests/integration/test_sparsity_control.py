"""Every kind of keeping ratio in the whole detector: batches, all tokens kept, training."""

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.config.loading import load_config
from sparse_detr.config.overrides import ConfigError, apply_overrides
from sparse_detr.inference import inspect_image, optimize_for_inference
from sparse_detr.token_selection import ScoreMass, as_keep_ratio

SIZES = [(96, 128), (160, 200), (64, 416), (96, 128), (24, 33)]
FORMS = (
    "0.3",
    "levels:0.05,0.2,0.5,1",
    "layers:0.5,0.3,0.1",
    "layers:0.1/levels:0.1,0.1,1,1/mass:0.6",
    "mass:0.7",
    "mass:0.9,0.05-0.3",
    "gflops:0.008",
)


def detect(model, inputs, keep_ratio=None):
    with torch.no_grad():
        return model.detect(model.extract_tokens(model.preprocess(inputs)), keep_ratio)


def cells(output, image):
    """Own kept tokens of each layer as (level, row, column), best first."""
    shapes, found = output.tokens.spatial_shapes, []
    starts = output.tokens.level_start_index
    for kept in output.selection.layers:
        rows = []
        for token in kept.kept_indices[image, : kept.kept_counts[image]].tolist():
            level = max(i for i, start in enumerate(starts) if token >= start)
            rows.append((level, *divmod(token - starts[level], shapes[level][1])))
        found.append(rows)
    return found


@pytest.fixture(scope="module")
def sparse():
    return small_detector("sparse_detr", feature_projection__num_groups=8).double()


@pytest.mark.parametrize("form", FORMS)
def test_an_image_keeps_and_detects_alone_what_it_does_in_a_batch(sparse, form):
    inputs = batch(SIZES)
    together = detect(sparse, inputs, form)
    for index, item in enumerate(inputs):
        alone = detect(sparse, [item], form)
        assert cells(together, index) == cells(alone, 0)
        torch.testing.assert_close(
            together.decoder.predictions[-1].boxes_cxcywh[index],
            alone.decoder.predictions[-1].boxes_cxcywh[0],
            rtol=0,
            atol=1e-9,
        )


@pytest.mark.parametrize("form", ["1", "levels:1,1,1,1", "layers:1,1,1", "gflops:1e6"])
def test_everything_kept_equals_the_dense_detector_with_the_same_weights(sparse, form):
    dense = small_detector("efficient_detr", feature_projection__num_groups=8).double()
    dense.load_state_dict(sparse.state_dict(), strict=False)
    inputs = batch(SIZES)
    got, expected = detect(sparse, inputs, form), detect(dense, inputs)
    for field in ("logits", "boxes_cxcywh"):
        torch.testing.assert_close(
            getattr(got.decoder.predictions[-1], field),
            getattr(expected.decoder.predictions[-1], field),
            rtol=0,
            atol=1e-9,
        )


@pytest.mark.parametrize("form", FORMS)
def test_a_ratio_is_set_given_per_call_and_in_the_config_with_one_result(form):
    inputs = batch(SIZES[:2])
    built, called = small_detector(keep_ratio=form), small_detector()
    expected = cells(detect(built, inputs), 1)
    assert cells(detect(called, inputs, form), 1) == expected
    assert cells(detect(called, inputs, as_keep_ratio(form)), 1) == expected
    assert called.keep_ratio == 0.3
    called.keep_ratio = form
    assert cells(detect(called, inputs), 1) == expected
    assert str(called.keep_ratio) == form
    inspected = inspect_image(small_detector(), inputs[1], keep_ratio=form)
    assert cells(inspected.output, 0) == expected


@pytest.mark.parametrize("form", FORMS)
def test_a_training_step_reaches_every_parameter(form):
    model = small_detector(keep_ratio=form).train()
    losses = model(batch([(96, 128), (64, 80)], [5, 4]))
    assert {name for name in losses if "_enc_" in name}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("form", FORMS)
def test_an_optimised_detector_keeps_the_same_tokens(form):
    model, inputs = small_detector(), batch(SIZES[:2])
    optimised = optimize_for_inference(model)
    assert cells(detect(optimised, inputs, form), 0) == cells(detect(model, inputs, form), 0)
    optimised.keep_ratio = form
    with torch.no_grad():
        assert len(optimised(inputs)) == 2


def test_a_ratio_that_does_not_fit_the_detector_is_refused_wherever_it_is_given():
    with pytest.raises(ValueError, match="has 2 levels, but the detector has 4"):
        small_detector(keep_ratio="levels:0.1,0.2")
    model = small_detector()
    with pytest.raises(ValueError, match="has 2 layers, but the encoder has 3"):
        model.keep_ratio = "layers:0.1,0.2"
    with pytest.raises(ValueError, match="has 1 levels"):
        detect(model, batch(SIZES[:1]), "layers:0.1/levels:0.5/0.1")
    assert model.keep_ratio == 0.3


def test_logs_and_targets_count_what_any_layer_updates():
    model = small_detector(keep_ratio="layers:0.1/levels:0.1,0.1,1,1/0.2").train()
    output = detect(model, batch(SIZES[:2]))
    selection, num_tokens = output.selection, output.tokens.features.shape[1]
    union = selection.union(num_tokens)
    expected = torch.stack([kept.membership(num_tokens) for kept in selection.layers]).any(0)
    assert torch.equal(union, expected)
    assert selection.union_counts(num_tokens) == tuple(expected.sum(1).tolist())
    assert all(c > max(k.kept_counts[0] for k in selection.layers) for c in union.sum(1)[:1])
    single = detect(model, batch(SIZES[:2]), 0.3).selection
    assert single.union_counts(num_tokens) == single.layers[0].kept_counts


@pytest.mark.parametrize("form", [*FORMS[1:], "latency:150", "latency:150,0.1-1,output/here.json"])
def test_the_command_line_takes_every_form_without_quotes(form):
    config = load_config("quickstart", [f"model.keep_ratio={form}"])
    assert config.model.keep_ratio == form
    again = apply_overrides(config, ["model.keep_ratio=0.2"])
    assert again.model.keep_ratio == 0.2


def test_the_command_line_refuses_other_texts_and_other_lists_as_before():
    config = load_config("quickstart")
    with pytest.raises(ConfigError, match="expected a number"):
        apply_overrides(config, ["model.keep_ratio=half"])
    with pytest.raises(ConfigError, match="several values"):
        apply_overrides(config, ["model.keep_ratio=0.1,0.2"])
    with pytest.raises(ConfigError, match="several values"):
        apply_overrides(config, ["train.output_dir=levels:1,2"])


def test_a_kind_in_the_config_is_the_object_that_the_detector_has():
    assert small_detector(keep_ratio="mass:0.9").keep_ratio == ScoreMass(0.9)
