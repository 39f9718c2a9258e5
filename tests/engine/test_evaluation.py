"""Results: stored as valid json, checked against what was expected; models are left as they
were."""

import json
import math
from pathlib import Path

import pytest
import torch
from toy import ToyDetector

from sparse_detr.engine.ema import ModelEma
from sparse_detr.engine.evaluation import evaluate_model, missed_expectations, save_results

RESULTS = {"bbox": {"AP": 45.2, "AP50": math.nan}}


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        (["bbox", "AP", 45.0, 0.5], True),
        (["bbox", "AP", 46.0, 0.5], False),
        (["bbox", "AP", 45.2], True),
        (["bbox", "AP", 45.3], False),
        (["bbox", "AP50", 0.0], False),
        (["bbox", "AP50", 0.0, 100.0], False),
        (["segm", "AP", 0.0], False),
    ],
)
def test_expectations(row: list, is_met: bool) -> None:
    assert (missed_expectations(RESULTS, [row]) == []) is is_met


@pytest.mark.parametrize("row", [["bbox", "AP"], ["bbox", "AP", "45"], "bbox"])
def test_an_expectation_of_another_form_is_refused(row: object) -> None:
    with pytest.raises(ValueError, match="expected_results has the row"):
        missed_expectations(RESULTS, [row])


def test_metrics_that_are_not_finite_become_null(tmp_path: Path) -> None:
    save_results(RESULTS, tmp_path / "results.json", 3)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == {"iteration": 3, "results": {"bbox": {"AP": 45.2, "AP50": None}}}


class FailingEvaluator:
    def reset(self) -> None:
        torch.rand(3)

    def process(self, inputs: object, outputs: object) -> None:
        raise RuntimeError("evaluator failed")


def test_a_failing_evaluation_leaves_weights_modes_and_random_numbers_as_they_were() -> None:
    model = ToyDetector()
    average = ModelEma(model, decay=0.5)
    with torch.no_grad():
        model.head.bias.add_(1.0)
    model.train()
    model.dropout.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_before = torch.get_rng_state()
    image = {"image": torch.zeros(3, 8, 8), "height": 8, "width": 8}
    with pytest.raises(RuntimeError, match="evaluator failed"):
        evaluate_model(model, [[image], [image]], FailingEvaluator(), average)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and not model.dropout.training
    assert torch.equal(torch.get_rng_state(), random_before)
