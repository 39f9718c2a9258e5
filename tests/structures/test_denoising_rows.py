"""Denoising rows: who sees whom, and who answers for what."""

import torch

from sparse_detr.structures import DecoderQueries, DenoisingRows

CPU = torch.device("cpu")


def test_groups_see_themselves_and_the_matching_queries_who_see_no_group():
    rows = DenoisingRows((2, 1), groups=2)
    seen = rows.visible(3, CPU)
    assert rows.slots == 2 and rows.rows == 8
    first, second, matching = slice(0, 4), slice(4, 8), slice(8, 11)
    assert seen[first, first].all() and seen[second, second].all()
    assert not seen[first, second].any() and not seen[second, first].any()
    assert seen[:, matching].all()
    assert not seen[matching, :8].any()


def test_every_object_answers_to_the_positive_half_of_every_group():
    image, row, found, in_batch = DenoisingRows((1, 2), groups=2).assignment().tolist()
    assert image == [0, 0, 1, 1, 1, 1]
    assert row == [0, 4, 0, 1, 4, 5]
    assert found == [0, 0, 0, 1, 0, 1]
    assert in_batch == [0, 0, 1, 2, 1, 2]


def test_slots_beyond_the_objects_of_an_image_are_unused():
    used = DenoisingRows((1, 2), groups=1).used(CPU)
    assert used.tolist() == [[True, False, True, False], [True] * 4]
    assert DenoisingRows((2, 2), groups=3).used(CPU) is None
    assert DenoisingRows((1, 2), groups=1, unused_rows_seen=True).used(CPU) is None


def test_without_objects_there_is_no_row():
    rows = DenoisingRows((0, 0), groups=100)
    assert rows.rows == rows.slots == 0
    assert rows.assignment().shape == (4, 0)
    assert rows.visible(2, CPU).all()


def test_queries_tell_who_is_visible_in_the_simplest_form():
    content = torch.zeros(2, 5, 4)
    mask = torch.tensor([[True] * 5, [True, True, False, True, True]])
    assert DecoderQueries(content, None, None).visible() is None
    assert DecoderQueries(content, None, None, query_mask=mask).visible() is mask
    rows = DenoisingRows((1, 1), groups=1)
    plain = DecoderQueries(content, None, None, denoising=rows).visible()
    assert plain.shape == (1, 5, 5)
    masked = DecoderQueries(content, None, None, query_mask=mask, denoising=rows).visible()
    assert masked.shape == (2, 5, 5)
    assert not masked[1, :, 2].any() and masked[0].equal(plain[0])
