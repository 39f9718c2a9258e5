"""What an image gets must not depend on which images share its batch."""

import pytest
import torch

from builders import SYSTEMS, batch, small_detector
from sparse_detr.query_selection.denoising import DenoisingNoise
from sparse_detr.structures import TokenSelection
from sparse_detr.token_scoring import RandomScoring

# A usual image, a larger one, a wide one, one of the first's size, and a much smaller one.
SIZES = [(96, 128), (160, 200), (64, 416), (96, 128), (24, 33)]
# On one level and on several. A single token would give every query the same content, and with it
# scores whose order is chance.
FEWER_TOKENS_THAN_QUERIES = ((40, 70), (10, 12))
TOLERANCE = 1e-9
NUM_QUERIES = 10
# Terms that are a mean over the images of a batch.
IMAGE_MEANS = ("loss_decoder_attention_map", "loss_foreground", "loss_poll_regularisation")


@pytest.fixture(scope="module", params=SYSTEMS)
def detector(request):
    model = small_detector(request.param)
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.num_groups = 8
    return model.double()


@pytest.fixture(scope="module")
def released_sparse_detr():
    return small_detector("sparse_detr", released_behaviour=True).double()


@pytest.fixture
def trained_detector(detector):
    """The detector in training mode, for this test."""
    if isinstance(detector.token_scoring, RandomScoring):
        pytest.skip("random scores are drawn anew in every step")
    denoising = getattr(detector.query_selection, "denoising", None)
    if denoising is not None:
        denoising.noise = even_noise
    yield detector.train()
    detector.eval()


def even_noise(rows, num_classes, chance, like):
    """Noise that is the same for every copy of every object."""
    kept = torch.zeros(rows, dtype=torch.bool)
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0]).to(like).expand(rows, -1)
    return DenoisingNoise(kept, kept.new_zeros(0, dtype=torch.int64), signs, signs.abs() * 0.3)


def detect(model, inputs, **kwargs):
    with torch.no_grad():
        return [item["instances"] for item in model(inputs, **kwargs)]


def assert_same_detections(got, expected):
    assert len(got) == len(expected)
    torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=TOLERANCE)
    assert torch.equal(got.pred_classes, expected.pred_classes)
    # Boxes are pixels in float32, whatever the type of the model.
    boxes, expected_boxes = got.pred_boxes.tensor, expected.pred_boxes.tensor
    torch.testing.assert_close(boxes, expected_boxes, rtol=0, atol=5e-5)


@pytest.mark.parametrize("position", range(len(SIZES)))
def test_an_image_gets_alone_what_it_gets_in_a_batch(detector, position):
    inputs = batch(SIZES)
    together = detect(detector, inputs)[position]
    alone = detect(detector, [inputs[position]])[0]
    assert_same_detections(together, alone)


def test_an_image_with_fewer_tokens_than_queries_gets_alone_what_it_gets_in_a_batch(detector):
    several = len(detector.position_embedding.level_embed) > 1
    inputs = batch([SIZES[0], FEWER_TOKENS_THAN_QUERIES[several]])
    together = detect(detector, inputs)[1]
    alone = detect(detector, inputs[1:])[0]
    assert_same_detections(together, alone)


def test_permuting_the_batch_permutes_the_detections(detector):
    inputs = batch(SIZES)
    order = [3, 0, 4, 1, 2]
    straight = detect(detector, inputs)
    permuted = detect(detector, [inputs[i] for i in order])
    for got, source in zip(permuted, order, strict=True):
        assert_same_detections(got, straight[source])


def test_copies_of_an_image_in_one_batch_get_the_same(detector):
    (image,) = batch([(96, 128)])
    first, second = detect(detector, [image, image])
    assert_same_detections(first, second)


@pytest.mark.parametrize(
    ("system", "keep_ratio"),
    [
        *(("sparse_detr", ratio) for ratio in (0.05, 0.5, 1.0)),
        ("focus_detr", "cascade:0.5x1,0.6,0.4"),
    ],
)
def test_the_kept_tokens_of_an_image_do_not_depend_on_its_batch(system, keep_ratio):
    model = small_detector(system, feature_projection__num_groups=8).double()
    inputs = batch(SIZES)
    with torch.no_grad():
        together = model.detect(model.extract_tokens(model.preprocess(inputs)), keep_ratio)
    shapes = together.tokens.spatial_shapes
    for index, item in enumerate(inputs):
        with torch.no_grad():
            alone = model.detect(model.extract_tokens(model.preprocess([item])), keep_ratio)
        for layer in range(len(together.selection.layers)):
            own = cells(alone.selection, alone.tokens.spatial_shapes, 0, layer)
            assert cells(together.selection, shapes, index, layer) == own


def cells(selection: TokenSelection, shapes, image, layer):
    """Own kept tokens as (level, row, column), best first; indices mean nothing across batches."""
    kept = selection.layers[layer]
    found = []
    for token in kept.kept_indices[image, : kept.kept_counts[image]].tolist():
        level = 0
        while token >= shapes[level][0] * shapes[level][1]:
            token -= shapes[level][0] * shapes[level][1]
            level += 1
        found.append((level, *divmod(token, shapes[level][1])))
    return found


@pytest.mark.parametrize("num_objects", [[3, 2], [3, 0], [0, 0]])
def test_the_loss_of_a_batch_is_that_of_its_images(trained_detector, num_objects):
    """Every term but the token scoring one is a sum over images divided by the objects; the
    cross-entropy is divided by the weights of the queries."""
    inputs = batch([(96, 128), (160, 200)], num_objects)
    together = trained_detector(inputs)
    apart = [trained_detector([item]) for item in inputs]
    for name, value in together.items():
        if name in IMAGE_MEANS:
            continue
        counts = [max(1, n) for n in num_objects]
        total = max(1, sum(num_objects))
        if name.startswith("loss_class") and trained_detector.heads.no_object_logit:
            # A weighted mean over the queries: those without object weigh a tenth.
            counts = [n + 0.1 * (NUM_QUERIES - n) for n in num_objects]
            total = sum(counts)
        shares = [losses[name] * n for losses, n in zip(apart, counts, strict=True)]
        expected = sum(shares) / total
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("system", "name", "keep_ratio"),
    [
        *(("sparse_detr", "loss_decoder_attention_map", ratio) for ratio in (0.1, 0.5, 1.0)),
        ("focus_detr", "loss_foreground", "cascade:0.5x1,0.6,0.4"),
        *(("pnp_detr", "loss_poll_regularisation", ratio) for ratio in (0.1, 0.5, 1.0)),
    ],
)
def test_the_token_scoring_loss_of_a_batch_is_the_mean_of_its_images(system, name, keep_ratio):
    model = small_detector(system, keep_ratio=keep_ratio).double().train()
    inputs = batch([(96, 128), (160, 200), (48, 64)], [3, 2, 0])
    together = model(inputs)[name]
    apart = torch.stack([model([item])[name] for item in inputs])
    torch.testing.assert_close(together, apart.mean(), rtol=1e-9, atol=1e-9)


def test_permuting_objects_leaves_the_loss(trained_detector):
    inputs = batch([(96, 128)], [4])
    straight = trained_detector(inputs)
    instances = inputs[0]["instances"]
    inputs[0]["instances"] = instances[torch.tensor([2, 0, 3, 1])]
    permuted = trained_detector(inputs)
    for name, value in straight.items():
        torch.testing.assert_close(value, permuted[name], rtol=1e-9, atol=1e-9, msg=name)


def test_the_released_behaviour_depends_on_the_batch(released_sparse_detr):
    inputs = batch(SIZES[:2])
    together = detect(released_sparse_detr, inputs)[0]
    alone = detect(released_sparse_detr, inputs[:1])[0]
    assert (together.scores - alone.scores).abs().max() > 1e-4


def test_the_released_behaviour_gives_a_single_image_the_same_scores_of_its_tokens():
    """Without padding the scoring switches have nothing to differ on, edge tokens aside."""
    inputs = batch([(96, 128)])
    scores = []
    for released in (False, True):
        model = small_detector("sparse_detr", released_behaviour=released).double()
        with torch.no_grad():
            output = model.detect(model.extract_tokens(model.preprocess(inputs)))
        scores.append(output.selection.token_scores)
    torch.testing.assert_close(*scores, rtol=0, atol=1e-12)
