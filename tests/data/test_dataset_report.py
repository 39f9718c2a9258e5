import pytest

from sparse_detr.data.dataset_report import KINDS, SKIPPABLE, DatasetReport


def test_counts_go_on_after_the_examples_are_full() -> None:
    report = DatasetReport("data")
    for i in range(9):
        report.add("reversed_bbox", f"annotation {i}")
    assert report.counts == {"reversed_bbox": 9} and len(report.examples["reversed_bbox"]) == 5
    text = report.format()
    assert "reversed_bbox: 9" in text and "annotation 4, ..." in text and "annotation 5" not in text


def test_only_errors_make_it_not_ok_and_raise() -> None:
    report = DatasetReport("data")
    report.add("degenerate_bbox", "annotation 1")
    report.add("empty_category", "3")
    assert report.ok
    report.raise_if_errors()
    report.add("no_bbox", "annotation 2")
    assert not report.ok
    with pytest.raises(ValueError, match="no_bbox: 1") as caught:
        report.raise_if_errors()
    assert "degenerate_bbox" not in str(caught.value)


def test_errors_that_a_skipping_loader_gets_past_can_be_ignored() -> None:
    assert all(KINDS[kind][0] == "error" for kind in SKIPPABLE)
    report = DatasetReport("data")
    report.add("non_finite_bbox", "annotation 1")
    report.raise_if_errors(ignoring=SKIPPABLE)
    report.add("orphan_annotation", "annotation 2")
    with pytest.raises(ValueError, match="orphan_annotation"):
        report.raise_if_errors(ignoring=SKIPPABLE)


def test_an_empty_report_says_so() -> None:
    assert "nothing found" in DatasetReport("data").format()
