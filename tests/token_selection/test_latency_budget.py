"""Latency budgets: what a calibration says, when it is refused, and what is kept by it."""

import json

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.benchmarking.timing import TimingPlan
from sparse_detr.inference import optimize_for_inference
from sparse_detr.token_selection import calibration as program
from sparse_detr.token_selection import kept_count
from sparse_detr.token_selection.calibration import calibrate
from sparse_detr.token_selection.latency import (
    Calibration,
    CalibrationError,
    Line,
    add_calibration,
    default_file,
    find_calibration,
    fitted_lines,
    machine_key,
    model_key,
    read_calibrations,
)

SIZES = [(96, 128), (64, 80)]
LINES = (Line(0.1, 10.0, 0.1), Line(0.5, 20.0, 0.2), Line(1.0, 25.0, 0.4))


def calibration_of(model, lines=LINES):
    return Calibration(model_key(model), machine_key(model.device), lines)


@pytest.fixture
def model():
    return small_detector()


@pytest.fixture
def file(tmp_path, model):
    path = tmp_path / "latency.json"
    add_calibration(calibration_of(model), path)
    return path


def kept_counts(model, keep_ratio):
    with torch.no_grad():
        tokens = model.extract_tokens(model.preprocess(batch(SIZES)))
        return model.detect(tokens, keep_ratio).selection.layers[0].kept_counts, tokens


def test_times_are_interpolated_between_the_measured_ratios():
    calibration = Calibration({}, {}, LINES)
    assert calibration.milliseconds(100, 10) == pytest.approx(20)
    assert calibration.milliseconds(100, 30) == pytest.approx(30)
    assert calibration.milliseconds(100, 75) == pytest.approx((40 + 65) / 2)
    assert calibration.milliseconds(100, 1) == pytest.approx(20)


def test_more_kept_tokens_never_take_less_time():
    calibration = Calibration({}, {}, (Line(0.1, 9.0, 0.1), Line(0.5, 5.0, 0.1), Line(1, 12, 0.1)))
    times = [calibration.milliseconds(100, kept) for kept in range(1, 101)]
    assert times == sorted(times)


def test_lines_are_fitted_and_their_error_is_told():
    exact = {0.1: [(100, 20.0), (300, 40.0)], 1.0: [(100, 30.0), (300, 70.0)]}
    lines, error = fitted_lines(exact)
    assert [line.keep_ratio for line in lines] == [0.1, 1.0]
    assert lines[0].intercept_ms == pytest.approx(10) and error == pytest.approx(0, abs=1e-12)
    assert lines[1].ms_per_token == pytest.approx(0.2)
    _, error = fitted_lines({0.1: [(1, 10.0), (2, 13.0), (3, 10.0)], 1.0: [(1, 1.0), (2, 1.0)]})
    assert error == pytest.approx(2 / 13)


def test_a_time_that_falls_with_the_tokens_is_taken_as_constant():
    lines, _ = fitted_lines({0.1: [(1, 10.0), (2, 8.0)], 1.0: [(1, 10.0), (2, 20.0)]})
    assert lines[0] == Line(0.1, 9.0, 0.0)


@pytest.mark.parametrize("times", [{0.1: [(1, 1.0), (1, 2.0)]}, {0.1: [(1, 1.0), (2, 2.0)]}])
def test_too_few_measurements_are_refused(times):
    with pytest.raises(ValueError, match="two"):
        fitted_lines(times)


def test_a_budget_keeps_as_many_tokens_as_the_calibration_allows(model, file):
    counts, tokens = kept_counts(model, f"latency:70,{file}")
    calibration = calibration_of(model)
    for kept, valid in zip(counts, tokens.valid_counts, strict=True):
        assert calibration.milliseconds(valid, kept) <= 70
        assert kept == valid or calibration.milliseconds(valid, kept + 1) > 70
    assert counts[0] < tokens.valid_counts[0]


def test_a_budget_keeps_to_its_bounds(model, file):
    counts, tokens = kept_counts(model, f"latency:1,0.2-0.4,{file}")
    assert counts == tuple(kept_count(valid, 0.2) for valid in tokens.valid_counts)
    counts, tokens = kept_counts(model, f"latency:1000,0.2-0.4,{file}")
    assert counts == tuple(kept_count(valid, 0.4) for valid in tokens.valid_counts)


def test_without_a_file_the_message_names_it_and_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        CalibrationError, match=r"token_selection\.calibration --config-file"
    ) as error:
        kept_counts(model, "latency:10")
    assert str(default_file()) in str(error.value) and str(tmp_path) in str(error.value)


def test_a_calibration_of_another_model_machine_or_optimisation_is_refused(model, file):
    with pytest.raises(CalibrationError, match="only of another model"):
        find_calibration(small_detector(encoder__num_layers=2), str(file))
    with pytest.raises(
        CalibrationError, match=r"optimised: exact.*only of this model optimised: no"
    ):
        find_calibration(optimize_for_inference(model), str(file))
    text = json.loads(file.read_text())
    text["calibrations"][0]["machine"]["processor"] = "an abacus"
    file.write_text(json.dumps(text))
    with pytest.raises(CalibrationError, match="this model on processor 'an abacus'"):
        find_calibration(model, str(file))


def test_another_number_of_threads_asks_for_another_calibration(model, file, monkeypatch):
    find_calibration(model, str(file))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 97)
    with pytest.raises(CalibrationError, match="threads 97"):
        find_calibration(model, str(file))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"calibrations": [{}]}', '{"calibrations": 3}'])
def test_a_damaged_file_is_told_from_a_missing_one(model, tmp_path, text):
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_calibration(model, str(path))


def test_a_file_keeps_one_calibration_for_each_detector_and_machine(model, file):
    other = small_detector(encoder__num_layers=2)
    add_calibration(calibration_of(other), file)
    assert len(read_calibrations(file)) == 2
    newer = calibration_of(model, (Line(0.1, 1.0, 0.0), Line(1.0, 2.0, 0.0)))
    add_calibration(newer, file)
    assert len(read_calibrations(file)) == 2
    assert find_calibration(model, str(file)).lines == newer.lines


def test_a_measurement_gives_a_calibration_that_a_budget_can_use(model, tmp_path):
    plan = TimingPlan(rounds=1, block_seconds=0.0, warmup_calls=1, patience_seconds=0.0)
    told = []
    made = calibrate(model, SIZES, [1, 0.1], plan, told.append)
    assert [line.keep_ratio for line in made.lines] == [0.1, 1.0]
    assert [(m["tokens"], m["kept"]) for m in made.measurements] == [
        (310, 32), (310, 310), (142, 15), (142, 142),
    ]  # fmt: skip
    assert all(m["ms"] > 0 for m in made.measurements) and len(told) == 2
    add_calibration(made, tmp_path / "a.json")
    counts, tokens = kept_counts(model, f"latency:1e6,{tmp_path / 'a.json'}")
    assert counts == tokens.valid_counts


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        calibrate(small_detector().train())
    with pytest.raises(ValueError, match="does not select tokens"):
        calibrate(small_detector("efficient_detr"))


def test_the_program_says_what_is_wrong_in_one_line(capsys):
    assert program.main(["--config-file", "quickstrat"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    dense = "deformable_detr/deformable_detr_r50_topk_queries_50ep"
    assert program.main(["--config-file", dense, "--device", "cpu"]) == 2
    assert "does not select tokens" in capsys.readouterr().err


def changed(change):
    other = small_detector()
    change(other)
    return model_key(other)


def test_what_takes_time_but_has_no_shape_tells_detectors_apart():
    same = model_key(small_detector())
    assert changed(lambda m: None) == same
    assert changed(lambda m: setattr(m.postprocess, "max_detections", 7)) != same
    reader = next(
        name for name, part in small_detector().named_modules()
        if hasattr(part, "project_after_sampling")
    )  # fmt: skip
    order = lambda m: setattr(m.get_submodule(reader), "project_after_sampling", True)  # noqa: E731
    assert changed(order) != same
    dilated = lambda m: setattr(  # noqa: E731
        next(p for p in m.modules() if isinstance(p, torch.nn.Conv2d)), "dilation", (3, 3)
    )
    assert changed(dilated) != same


def test_a_detector_is_known_again_in_another_process():
    # An address in the text of a part would make every calibration useless.
    assert " at 0x" not in repr(small_detector())
