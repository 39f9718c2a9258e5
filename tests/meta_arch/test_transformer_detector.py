"""The detector: its contract with Detectron2, its ratio, and what it computes when."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from detectron2.utils.events import EventStorage

from builders import SYSTEMS, batch, small_detector
from sparse_detr.criterion import NonFinitePredictionError

SIZES = [(96, 128), (64, 160)]
BAD_RATIOS = [0, -0.1, 1.5, math.nan, math.inf, "half", []]


@pytest.fixture
def sparse():
    return small_detector("sparse_detr")


@torch.no_grad()
def output_of(model, inputs, **kwargs):
    return model.detect(model.extract_tokens(model.preprocess(inputs)), **kwargs)


@torch.no_grad()
def detections(model, inputs, **kwargs):
    return [item["instances"] for item in model(inputs, **kwargs)]


def assert_equal_detections(first, second):
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_classes, b.pred_classes)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


def test_losses_are_weighted_by_the_criterion():
    inputs = batch(SIZES, [3, 2])
    single = small_detector("sparse_detr").train()(inputs)
    double = small_detector(
        "sparse_detr", criterion__bbox_weight=10.0, criterion__token_scoring_weight=3.0
    ).train()(inputs)
    torch.testing.assert_close(double["loss_bbox_0"], 2 * single["loss_bbox_0"])
    torch.testing.assert_close(double["loss_class"], single["loss_class"])
    name = "loss_decoder_attention_map"
    torch.testing.assert_close(double[name], 3 * single[name])


def test_keep_ratio_can_be_set_after_construction_and_changes_only_the_counts(sparse):
    inputs, counts = batch(SIZES), []
    for ratio in (0.05, 0.2, 0.6, 1.0):
        sparse.keep_ratio = ratio
        assert sparse.keep_ratio == ratio
        selection = output_of(sparse, inputs).selection
        counts.append(selection.layers[0].kept_counts)
    assert all(a < b for a, b in itertools.pairwise(counts))


def test_keep_ratio_of_a_call_equals_the_ratio_set_and_lasts_for_that_call(sparse):
    inputs = batch(SIZES)
    before = detections(sparse, inputs)
    called = detections(sparse, inputs, keep_ratio=0.7)
    assert sparse.keep_ratio == 0.3
    assert_equal_detections(detections(sparse, inputs), before)
    sparse.keep_ratio = 0.7
    assert_equal_detections(detections(sparse, inputs), called)


@pytest.mark.parametrize("bad", [*BAD_RATIOS, None])
def test_a_bad_ratio_is_refused_when_set_and_the_old_one_stays(sparse, bad):
    with pytest.raises(ValueError, match="keep_ratio must be a number"):
        sparse.keep_ratio = bad
    assert sparse.keep_ratio == 0.3


@pytest.mark.parametrize("bad", BAD_RATIOS)
def test_a_bad_ratio_is_refused_per_call(sparse, bad):
    with pytest.raises(ValueError, match="keep_ratio must be a number"):
        detections(sparse, batch(SIZES), keep_ratio=bad)


@pytest.mark.parametrize("bad", [0.0, 1.5, None])
def test_a_bad_ratio_is_refused_at_construction(bad):
    with pytest.raises(ValueError, match="keep_ratio must be a number"):
        small_detector("sparse_detr", keep_ratio=bad)


def test_a_dense_detector_has_no_ratio():
    model = small_detector("efficient_detr")
    assert model.keep_ratio is None
    with pytest.raises(ValueError, match="keep_ratio must be None for a detector that does not"):
        model.keep_ratio = 0.3
    with pytest.raises(ValueError, match="keep_ratio must be None"):
        detections(model, batch(SIZES), keep_ratio=0.3)


def dense_twin(sparse):
    """Efficient DETR with the sparse detector's weights."""
    dense = small_detector("efficient_detr").to(next(sparse.parameters()).dtype)
    missing, unexpected = dense.load_state_dict(sparse.state_dict(), strict=False)
    assert missing == []
    assert all(k.startswith(("token_scoring.", "heads.stages.")) for k in unexpected)
    return dense


def test_keeping_all_tokens_equals_the_dense_detector_with_the_same_weights(sparse):
    sparse.double()
    sparse.keep_ratio = 1.0
    inputs = batch(SIZES)
    got, expected = output_of(sparse, inputs), output_of(dense_twin(sparse), inputs)
    assert torch.equal(
        got.selection.layers[0].membership(got.tokens.features.shape[1]), ~got.tokens.padding_mask
    )
    assert torch.equal(got.queries.token_indices, expected.queries.token_indices)
    for field in ("logits", "boxes_cxcywh"):
        torch.testing.assert_close(
            getattr(got.decoder.predictions[-1], field),
            getattr(expected.decoder.predictions[-1], field),
            rtol=0,
            atol=1e-10,
        )


def test_keeping_few_tokens_does_not_equal_the_dense_detector(sparse):
    inputs = batch(SIZES)
    got, expected = output_of(sparse, inputs), output_of(dense_twin(sparse), inputs)
    assert not torch.allclose(
        got.decoder.predictions[-1].logits, expected.decoder.predictions[-1].logits, atol=1e-3
    )


def count_rows(model):
    """Rows that every head sees in a forward pass, by stage and head."""
    rows = {}
    for index, stage in enumerate(model.heads.stages):
        for name in ("class_embed", "bbox_embed"):
            key = (index, name)
            getattr(stage, name).register_forward_hook(
                lambda module, args, out, key=key: rows.setdefault(key, []).append(args[0].shape[1])
            )
    return rows


def test_inference_computes_nothing_that_the_detections_do_not_need(sparse, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("the decoder cross-attention map was computed")

    monkeypatch.setattr("sparse_detr.criterion.corr.attention_received", forbidden)
    rows = count_rows(sparse)
    output = output_of(sparse, batch(SIZES))
    num_tokens = output.tokens.features.shape[1]
    # Two decoder layers, then the first stage, then the auxiliary heads.
    assert rows == {
        (0, "bbox_embed"): [10],
        (1, "bbox_embed"): [10],
        (1, "class_embed"): [10],
        (2, "class_embed"): [num_tokens],
        (2, "bbox_embed"): [10],
    }
    assert output.encoder_auxiliary == () and output.decoder.sampling == ()
    assert output.queries.first_stage is None
    detections(sparse, batch(SIZES))


def test_training_runs_every_head_once():
    model = small_detector("sparse_detr").train()
    rows = count_rows(model)
    model(batch(SIZES, [2, 2]))
    assert set(rows) == {(i, n) for i in range(5) for n in ("class_embed", "bbox_embed")}
    assert all(len(calls) == 1 for calls in rows.values())


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_detections_do_not_depend_on_whether_losses_were_asked_for(system):
    model, inputs = small_detector(system).double(), batch(SIZES)
    lean = output_of(model, inputs).decoder.predictions[-1]
    full = output_of(model, inputs, supervise=True, with_sampling=True).decoder.predictions[-1]
    torch.testing.assert_close(lean.logits, full.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(lean.boxes_cxcywh, full.boxes_cxcywh, rtol=0, atol=1e-12)


@pytest.mark.parametrize("system", SYSTEMS)
def test_float32_is_close_to_float64(system):
    model, inputs = small_detector(system), batch(SIZES)
    single = output_of(model, inputs)
    double = output_of(copy.deepcopy(model).double(), inputs)
    assert single.decoder.predictions[-1].logits.dtype == torch.float32
    if single.queries.token_indices is not None:
        assert torch.equal(single.queries.token_indices, double.queries.token_indices)
    for field in ("logits", "boxes_cxcywh"):
        torch.testing.assert_close(
            getattr(single.decoder.predictions[-1], field).double(),
            getattr(double.decoder.predictions[-1], field),
            rtol=0,
            atol=1e-3,
        )


@pytest.mark.parametrize("system", SYSTEMS)
def test_bfloat16_autocast_trains_and_predicts_finite_values(system):
    model = small_detector(system)
    with torch.autocast("cpu", torch.bfloat16):
        for found in detections(model, batch(SIZES)):
            assert found.scores.isfinite().all() and found.pred_boxes.tensor.isfinite().all()
        losses = model.train()(batch(SIZES, [3, 0]))
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("system", ["deformable_detr", "sparse_detr"])
def test_a_model_in_half_precision_predicts_finite_values(system, dtype):
    for found in detections(small_detector(system).to(dtype), batch(SIZES)):
        assert len(found) == 50 and found.scores.isfinite().all()


def test_recomputing_activations_gives_identical_gradients():
    inputs, gradients = batch(SIZES, [3, 2]), []
    for flag in (False, True):
        model = small_detector(
            "sparse_detr",
            encoder__checkpoint_activations=flag,
            decoder__checkpoint_activations=flag,
            encoder__dropout=0.2,
        ).train()
        torch.manual_seed(7)
        sum(model(inputs).values()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "state_dict"])
def test_a_copy_detects_the_same(system, copied):
    model, inputs = small_detector(system), batch(SIZES)
    if copied == "deepcopy":
        other = copy.deepcopy(model)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        other = small_detector(system, randomised=False)
        other.load_state_dict(model.state_dict(), strict=True)
    assert other.keep_ratio == model.keep_ratio
    assert_equal_detections(detections(other, inputs), detections(model, inputs))


def test_constants_are_not_part_of_the_state_dict(sparse):
    assert not {"pixel_mean", "pixel_std"} & set(sparse.state_dict())
    assert set(sparse.state_dict()) == {n for n, _ in sparse.named_parameters()}


def test_nothing_stays_on_the_modules_between_calls(sparse):
    inputs, other = batch(SIZES), batch([(64, 64)], [1])
    attributes = {n: set(vars(m)) for n, m in sparse.named_modules()}
    before = detections(sparse, inputs)
    sparse.train()(other)
    sparse.eval()
    assert_equal_detections(detections(sparse, inputs), before)
    sparse.train()(batch(SIZES, [0, 0]))
    sparse.eval()
    assert_equal_detections(detections(sparse, inputs), before)
    assert {n: set(vars(m)) for n, m in sparse.named_modules()} == attributes


def test_the_inputs_are_left_alone(sparse):
    inputs = batch(SIZES, [2, 1])
    images = [item["image"].clone() for item in inputs]
    keys = [set(item) for item in inputs]
    boxes = [item["instances"].gt_boxes.tensor.clone() for item in inputs]
    sparse.train()(inputs)
    for item, image, names, corners in zip(inputs, images, keys, boxes, strict=True):
        assert torch.equal(item["image"], image) and set(item) == names
        assert torch.equal(item["instances"].gt_boxes.tensor, corners)


def test_corr_and_kept_tokens_are_logged_where_a_trainer_runs(sparse):
    sparse.train()
    with EventStorage(0) as storage:
        sparse(batch(SIZES, [3, 2]))
        logged = {name: value for name, (value, _) in storage.latest().items()}
    assert {"corr", "class_error", "kept_tokens"} <= set(logged)
    assert 0 <= logged["corr"] <= 1
    counts = output_of(sparse.eval(), batch(SIZES)).selection.layers[0].kept_counts
    assert logged["kept_tokens"] == pytest.approx(sum(counts) / 2)


def test_a_network_that_went_wrong_names_stage_and_images(sparse):
    with torch.no_grad():
        sparse.heads.decoder(1).class_embed.bias[0] = float("nan")
    inputs = batch(SIZES, [1, 1])
    with pytest.raises(NonFinitePredictionError) as error:
        sparse.train()(inputs)
    assert error.value.stage == "decoder layer 1"
    assert error.value.image_ids == (0, 1)


def test_one_image_that_went_wrong_is_named_alone(sparse):
    inputs = batch(SIZES, [1, 1])
    inputs[1]["image"] = torch.full((3, 64, 160), float("nan"))
    with pytest.raises(NonFinitePredictionError) as error:
        sparse.train()(inputs)
    assert error.value.image_ids == (1,)


def test_a_wrong_label_is_refused_before_the_matcher(sparse):
    inputs = batch(SIZES, [1, 1])
    inputs[1]["instances"].gt_classes[0] = 5
    with pytest.raises(ValueError, match=r"gt_classes of image1\.png must be in \[0, 5\), got 5"):
        sparse.train()(inputs)


def test_training_without_a_criterion_is_refused_but_inference_works():
    model = small_detector("sparse_detr", criterion=None)
    assert len(detections(model, batch(SIZES))) == 2
    with pytest.raises(ValueError, match="criterion must be given to train"):
        model.train()(batch(SIZES, [1, 1]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"token_selection": None}, "given together, or neither"),
        ({"proposal_projection": None}, "proposal_projection must be given"),
        ({"heads__num_classes": 7}, "num_classes must agree among the parts, got 5 and 7"),
        ({"position_embedding__hidden_dim": 64}, "hidden_dim must agree"),
        ({"position_embedding__num_levels": 3}, "num_levels must agree"),
        ({"feature_projection__num_levels": 5}, "num_levels must agree"),
        ({"feature_projection__in_channels": {"c0": 9}}, "must match the backbone"),
        ({"heads__num_decoder_layers": 1}, "num_decoder_layers"),
        ({"heads__num_encoder_layers": 9}, "num_encoder_layers"),
        ({"heads__two_stage": False}, "two_stage"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        small_detector("sparse_detr", **overrides)
