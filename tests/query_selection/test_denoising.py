"""Contrastive denoising: what becomes of objects, how many groups there are, and who draws what."""

import pytest
import torch

from sparse_detr.query_selection import ContrastiveDenoising
from sparse_detr.query_selection.denoising import DenoisingNoise, drawn_noise
from sparse_detr.structures import DecoderQueries, Targets

C, Q, CLASSES = 8, 3, 5
BOX = [0.5, 0.4, 0.2, 0.1]


def targets_of(*counts):
    return [
        Targets(torch.arange(count) % CLASSES, torch.tensor([BOX] * count).double().view(-1, 4))
        for count in counts
    ]


def queries_of(batch, query_mask=None):
    content = torch.randn(batch, Q, C).double()
    return DecoderQueries(
        content, None, torch.full((batch, Q, 4), 0.5).double(), query_mask=query_mask
    )


def denoising_of(**kwargs):
    return ContrastiveDenoising(C, CLASSES, **kwargs).double()


def still(rows, num_classes, chance, like):
    """Noise that moves nothing but negatives, and those by half of the box, outwards right down."""
    nothing = torch.zeros(0, dtype=torch.int64)
    ones = like.new_ones(rows, 4)
    return DenoisingNoise(torch.zeros(rows, dtype=torch.bool), nothing, ones, 0 * ones)


@pytest.mark.parametrize(
    ("number", "counts", "groups"),
    [(100, (3, 1), 33), (100, (101, 4), 1), (6, (3, 2), 2), (100, (0, 1), 100)],
)
def test_the_fullest_image_says_how_many_groups_there_are(number, counts, groups):
    rows = denoising_of(denoising_number=number).rows_for(targets_of(*counts))
    assert rows.groups == groups and rows.counts == counts


def test_positives_are_where_the_objects_are_and_negatives_half_a_box_away():
    denoising = denoising_of(denoising_number=2)
    denoising.noise = still
    got = denoising(queries_of(2), targets_of(1, 2))
    assert got.denoising.groups == 1 and got.num_denoising == 4
    boxes = got.reference_points[1, :4]
    positive = torch.tensor(BOX).double()
    negative = positive + torch.tensor([0.1, 0.05, 0.0, 0.0]).double()
    torch.testing.assert_close(boxes[:2], positive.expand(2, 4))
    torch.testing.assert_close(boxes[2:], negative.expand(2, 4))
    embedding = denoising.label_embedding.weight
    torch.testing.assert_close(got.content[1, :2], embedding[:2])
    torch.testing.assert_close(got.content[1, 2:4], embedding[:2])


def test_unused_slots_are_empty_and_seen_by_nobody():
    denoising = denoising_of(denoising_number=2)
    got = denoising(queries_of(2), targets_of(1, 2))
    assert got.query_mask.tolist()[0] == [True, False, True, False] + [True] * Q
    assert (got.content[0, 1] == 0).all() and (got.reference_points[0, 1] == 0.5).all()
    assert denoising_of(unused_rows_seen=True)(queries_of(2), targets_of(1, 2)).query_mask is None


def test_the_mask_of_the_matching_queries_stays():
    mask = torch.tensor([[True, True, False]])
    got = denoising_of(denoising_number=1)(queries_of(1, mask), targets_of(1))
    assert got.query_mask.tolist() == [[True, True, True, True, False]]


def test_matching_queries_stay_as_they_are():
    queries = queries_of(2)
    got = denoising_of()(queries, targets_of(2, 0))
    first = got.num_denoising
    assert torch.equal(got.content[:, first:], queries.content)
    assert torch.equal(got.reference_points[:, first:], queries.reference_points)


def test_a_batch_without_objects_has_no_row_and_the_embedding_still_a_gradient():
    denoising = denoising_of()
    got = denoising(queries_of(2), targets_of(0, 0))
    assert got.num_denoising == 0 and got.content.shape == (2, Q, C)
    got.content.sum().backward()
    assert (denoising.label_embedding.weight.grad == 0).all()


def test_boxes_stay_inside_the_image_and_away_from_its_sides():
    boxes = torch.tensor([[0.01, 0.99, 0.02, 0.02]]).double()
    denoising = denoising_of()
    got = denoising(queries_of(1), [Targets(torch.zeros(1, dtype=torch.int64), boxes)])
    inside = got.reference_points[0, : got.num_denoising]
    assert (inside > 0).all() and (inside < 1).all()


def test_noise_is_drawn_in_the_released_order():
    like = torch.zeros(1, 4).double()
    torch.manual_seed(5)
    noise = drawn_noise(40, CLASSES, 0.25, like)
    torch.manual_seed(5)
    chance = torch.rand(40, dtype=torch.float64)
    changed = chance < 0.25
    labels = torch.randint(0, CLASSES, (int(changed.sum()),))
    signs = torch.randint(0, 2, (40, 4)).double() * 2 - 1
    parts = torch.rand(40, 4, dtype=torch.float64)
    assert torch.equal(noise.changed, changed) and torch.equal(noise.labels, labels)
    assert torch.equal(noise.signs, signs) and torch.equal(noise.parts, parts)


def test_labels_change_as_often_as_asked_for():
    torch.manual_seed(0)
    noise = drawn_noise(4000, CLASSES, 0.25, torch.zeros(1, 4))
    assert 0.22 < noise.changed.float().mean() < 0.28


def test_a_denoising_number_below_one_is_refused():
    with pytest.raises(ValueError, match="denoising_number"):
        ContrastiveDenoising(C, CLASSES, denoising_number=0)
