"""Corr without a loss, for deformable and for dense attention."""

import dataclasses

import pytest
import torch

from small_tokens import kept
from sparse_detr.criterion import CorrLog, SetCriterion
from sparse_detr.matcher import HungarianMatcher
from sparse_detr.structures import DecoderOutput, TokenSelection
from stage_outputs import output_of, random_predictions, random_targets

N, Q = 12, 4


def output(*layers, maps=None, predictions=None):
    maps = [torch.rand(2, Q, N).double() for _ in range(2)] if maps is None else maps
    stage = random_predictions(2, 3)
    selection = TokenSelection(tuple(layers), torch.randn(2, N).double(), predictions)
    case = output_of(stage, selection=selection)
    decoder = DecoderOutput((stage,), attention_maps=tuple(maps))
    return dataclasses.replace(case, decoder=decoder)


def test_it_is_the_share_of_the_summed_maps_that_falls_on_kept_tokens():
    case = output(kept([[5, 0], [3, 7]], [2, 1]))
    loss, logs = CorrLog()(case)
    total = sum(case.decoder.attention_maps).sum(1)
    first = (total[0, 5] + total[0, 0]) / total[0].sum()
    second = total[1, 3] / total[1].sum()
    assert loss is None
    torch.testing.assert_close(logs["corr"], (first + second) / 2)
    torch.testing.assert_close(logs["corr_level0"], logs["corr"])


def test_it_is_one_where_every_token_is_kept():
    rows = [list(range(N))] * 2
    assert CorrLog()(output(kept(rows, [N, N])))[1]["corr"].item() == pytest.approx(1.0)


def test_a_token_counts_as_kept_where_any_layer_keeps_it():
    first, second = kept([[5], [3]], [1, 1]), kept([[0], [3]], [1, 1])
    case = output(first, second)
    both = output(kept([[5, 0], [3, 7]], [2, 1]), maps=case.decoder.attention_maps)
    torch.testing.assert_close(CorrLog()(case)[1]["corr"], CorrLog()(both)[1]["corr"])


def test_the_criterion_logs_it_and_adds_the_stage_of_the_objectness_head_but_no_loss_of_the_map():
    matcher = HungarianMatcher()
    criterion = SetCriterion(matcher, token_scoring=CorrLog())
    objectness = random_predictions(2, N)
    case = output(kept([[5, 0], [3, 7]], [2, 1]), predictions=objectness)
    targets = random_targets([2, 1])
    result = criterion(case, targets, ["a", "b"])
    assert "corr" in result.logs and result.logs["kept_tokens"] == 1.5
    assert "loss_decoder_attention_map" not in result.terms
    alone = SetCriterion(matcher)(output_of(objectness), targets, ["a", "b"])
    for name in ("loss_class", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(result.terms[name + "_objectness"], alone.terms[name])
        assert result.weights[name + "_objectness"] == alone.weights[name]
    assert len(result.matches["_objectness"]) == 2
