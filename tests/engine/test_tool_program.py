"""Tools end with one message and a status that says whose turn it is."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_detr.config.overrides import ConfigError
from sparse_detr.engine.errors import UserError
from sparse_detr.engine.tool_program import (
    add_picture_options,
    check_numbers,
    output_folder,
    run_tool,
    tool_parser,
)


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("no such file"), 2, "error: no such file\n"),
        (ConfigError("no such key"), 2, "error: no such key\n"),
        (KeyboardInterrupt(), 130, "stopped at half\n"),
    ],
)
def test_an_end_that_is_no_bug_is_one_message_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool(lambda: raising(error), "stopped at half") == status
    assert capsys.readouterr().err == message


def test_work_that_ends_well_is_0_or_what_it_gives() -> None:
    assert run_tool(lambda: None) == 0
    assert run_tool(lambda: 1) == 1


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        run_tool(lambda: raising(KeyError("bug")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-images", "0"], "--num-images is 0, expected 1 or more"),
        (["--score-threshold", "1.5"], "--score-threshold is 1.5, expected 0 to 1"),
        (["--score-threshold", "nan"], "--score-threshold is nan"),
        (["--input", "a.png", "--dataset", "val"], "not allowed with"),
    ],
)
def test_options_out_of_range_are_refused_by_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = tool_parser("Draws.", "examples:\n  draw\n")
    add_picture_options(parser, "pictures")
    with pytest.raises(SystemExit, match="2"):
        check_numbers(parser, parser.parse_args(arguments), num_images=1)
    assert message in capsys.readouterr().err


def test_what_is_written_goes_beside_the_run_unless_a_folder_is_named() -> None:
    assert output_folder(None, "output/run", "sweep") == Path("output/run/sweep")
    assert output_folder("here", "output/run", "sweep") == Path("here")


def test_neither_torch_nor_detectron2_is_imported() -> None:
    code = (
        "import sys, sparse_detr.engine.tool_program\n"
        "print({'torch', 'detectron2'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def parsed(*words: str) -> argparse.Namespace:
    parser = tool_parser("text", "examples")
    parser.add_argument("--ratios", nargs="+", default=[])
    parser.add_argument("--sizes", nargs="+", type=int, default=[])
    parser.add_argument("--output")
    parser.add_argument("overrides", nargs="*")
    return parser.parse_intermixed_args(words)


def test_overrides_keep_their_order_wherever_they_stand() -> None:
    words = (
        "a=1",
        "--sizes",
        "3",
        "--ratios",
        "0.1",
        "b.c=2",
        "0.2",
        "+d=3",
        "--output",
        "x=y",
        "a=4",
    )
    options = parsed(*words)
    assert options.overrides == ["a=1", "b.c=2", "+d=3", "a=4"]
    assert (options.sizes, options.ratios, options.output) == ([3], ["0.1", "0.2"], "x=y")


def test_a_file_with_an_equals_sign_is_no_override(tmp_path: Path) -> None:
    file = tmp_path / "a=b.jpg"
    file.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert parsed("--ratios", "a=b.jpg", "c=d").ratios == ["a=b.jpg"]


@pytest.mark.parametrize("more", [[], ["--output", "x"]])
def test_a_list_of_overrides_alone_is_refused(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("--ratios", "a=b", *more)
    assert stop.value.code == 2
    assert "--ratios has nothing before the key=value arguments" in capsys.readouterr().err
