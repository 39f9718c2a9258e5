"""The loss of the token scores and the correlation that is logged beside it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from small_tokens import kept, sampling_at
from sparse_detr.criterion import TokenScoringLoss
from sparse_detr.decoder_attention_map import binarised_target, decoder_attention_map
from sparse_detr.structures import TokenSelection
from stage_outputs import output_of, random_predictions

VALID = [[(3, 4)], [(2, 2)]]
PADDED = torch.zeros(2, 3, 4).bool()
PADDED[1, 2:] = PADDED[1, :, 2:] = True
PADDED = PADDED.flatten(1)
INFINITY = float("inf")


def output(scores=None, indices=((5, 0, 1, 2), (0, 4, 3, 11)), counts=(4, 2)):
    sampling = sampling_at(torch.rand(2, 40, 2).double(), torch.rand(2, 40).double())
    if scores is None:
        scores = torch.randn(2, 12).double().masked_fill(PADDED, -INFINITY)
    selection = TokenSelection((kept(indices, counts),), scores)
    return output_of(
        random_predictions(2, 3), selection=selection, sampling=[sampling], valid=VALID
    )


def attention_of(case, shift=True):
    return decoder_attention_map(case.decoder.sampling, [(3, 4)], shift)


def image_means(case, target):
    """Mean cross-entropy of each image over its own tokens."""
    rows = zip(case.selection.token_scores, target, ~PADDED, strict=True)
    return torch.stack([F.binary_cross_entropy_with_logits(s[o], t[o]) for s, t, o in rows])


def test_it_is_the_mean_over_the_images_of_the_cross_entropy_of_their_own_tokens():
    case = output()
    loss, _ = TokenScoringLoss()(case)
    target = binarised_target(attention_of(case), PADDED, (4, 2))
    torch.testing.assert_close(loss, image_means(case, target).mean())


def test_as_many_tokens_are_marked_as_were_kept():
    """Scores of minus and plus infinity cost nothing only where they agree with the target."""
    case = output()
    target = binarised_target(attention_of(case), PADDED, (4, 2))
    assert target.sum(1).tolist() == [4, 2]
    perfect = output(scores=torch.where(target > 0, 50.0, -50.0).double())
    perfect.decoder.sampling[0].locations.copy_(case.decoder.sampling[0].locations)
    perfect.decoder.sampling[0].weights.copy_(case.decoder.sampling[0].weights)
    loss, _ = TokenScoringLoss()(perfect)
    assert loss.item() == pytest.approx(0, abs=1e-15)


def test_include_padding_averages_over_the_whole_padded_map():
    scores = torch.randn(2, 12).double()
    scores[PADDED] = scores[~PADDED].min()
    case = output(scores)
    loss, _ = TokenScoringLoss(include_padding=True)(case)
    target = binarised_target(attention_of(case), PADDED, (4, 2))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(scores, target))


def test_include_padding_adds_nothing_for_padding_at_minus_infinity():
    case = output()
    everything, _ = TokenScoringLoss(include_padding=True)(case)
    target = binarised_target(attention_of(case), PADDED, (4, 2))
    sums = image_means(case, target) * (~PADDED).sum(1)
    torch.testing.assert_close(everything * 24, sums.sum())


def test_the_loss_reaches_the_scores_only():
    scores = torch.randn(2, 12).double().requires_grad_()
    case = output(scores.masked_fill(PADDED, -INFINITY))
    case.decoder.sampling[0].weights.requires_grad_()
    loss, _ = TokenScoringLoss()(case)
    loss.backward()
    assert torch.equal(scores.grad != 0, ~PADDED)
    assert case.decoder.sampling[0].weights.grad is None


def test_half_cell_shift_decides_which_map_is_the_target():
    case = output()
    for shift in (True, False):
        loss, _ = TokenScoringLoss(half_cell_shift=shift)(case)
        target = binarised_target(attention_of(case, shift), PADDED, (4, 2))
        torch.testing.assert_close(loss, image_means(case, target).mean())
    assert not torch.equal(
        binarised_target(attention_of(case, True), PADDED, (4, 2)),
        binarised_target(attention_of(case, False), PADDED, (4, 2)),
    )


def test_corr_counts_own_tokens_over_the_map_without_padding():
    case = output()
    _, logs = TokenScoringLoss()(case)
    attention = attention_of(case).masked_fill(PADDED, 0)
    first = attention[0, [5, 0, 1, 2]].sum() / attention[0].sum()
    second = attention[1, [0, 4]].sum() / attention[1].sum()
    torch.testing.assert_close(logs["corr"], (first + second) / 2)
    torch.testing.assert_close(logs["corr_level0"], logs["corr"])


def test_surplus_counts_takes_every_row_over_the_whole_map():
    case = output()
    default, _ = TokenScoringLoss()(case)
    loss, logs = TokenScoringLoss(surplus_counts=True)(case)
    attention = attention_of(case)
    first = attention[0, [5, 0, 1, 2]].sum() / attention[0].sum()
    second = attention[1, [0, 4, 3, 11]].sum() / attention[1].sum()
    torch.testing.assert_close(logs["corr"], (first + second) / 2)
    assert torch.equal(loss, default)


def test_corr_is_one_where_every_token_is_kept():
    rows = [list(range(12)), [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11]]
    _, logs = TokenScoringLoss()(output(indices=rows, counts=(12, 4)))
    assert logs["corr"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [("selection", "selects tokens"), ("sampling", "with_sampling=True"), ("scores", "scores")],
)
def test_an_output_that_lacks_something_is_refused(lacking, message):
    case = output()
    if lacking == "scores":
        selection = dataclasses.replace(case.selection, token_scores=None)
        case = dataclasses.replace(case, selection=selection)
    elif lacking == "sampling":
        case = dataclasses.replace(case, decoder=dataclasses.replace(case.decoder, sampling=()))
    else:
        case = dataclasses.replace(case, selection=None)
    with pytest.raises(ValueError, match=message):
        TokenScoringLoss()(case)
