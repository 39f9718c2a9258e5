"""PnP-DETR's regularisation."""

from dataclasses import replace

import pytest
import torch

from small_tokens import kept
from sparse_detr.criterion import PollRegularisation
from sparse_detr.structures import TokenSelection
from stage_outputs import output_of, random_predictions

LOGITS = torch.tensor([[3.0, 1.0, -1.0, 0.5], [2.0, -2.0, 0.0, -5.0]]).double()


@pytest.fixture
def output():
    selection = TokenSelection((kept([[0, 1], [0, 2]], [2, 1]),), raw_scores=LOGITS)
    return output_of(random_predictions(2, 3), selection=selection)


def test_it_is_the_mean_over_the_images_of_the_scores_of_their_own_polled_tokens(output):
    loss, logs = PollRegularisation()(output)
    scores = LOGITS.sigmoid()
    assert loss.item() == pytest.approx(((scores[0, :2].mean() + scores[1, 0]) / 2).item())
    assert logs == {}


def test_the_released_one_counts_surplus_rows(output):
    loss, _ = PollRegularisation(surplus_counts=True)(output)
    scores = LOGITS.sigmoid()
    expected = (scores[0, 0] + scores[0, 1] + scores[1, 0] + scores[1, 2]) / 4
    assert loss.item() == pytest.approx(expected.item())


def test_an_output_without_scores_is_refused(output):
    with pytest.raises(ValueError, match=r"output\.selection must hold raw_scores"):
        PollRegularisation()(replace(output, selection=None))
