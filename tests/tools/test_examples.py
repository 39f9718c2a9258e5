"""Every command line that a tool shows in its help can be parsed as it stands."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparse_detr.token_selection import calibration

ROOT = Path(__file__).parents[2]
TOOLS = [
    path.stem
    for path in sorted((ROOT / "tools").glob("*.py"))
    if "\nEXAMPLES = " in path.read_text(encoding="utf-8")
]


def commands(examples: str) -> list[list[str]]:
    """The command lines: what is indented by four, goes on behind a backslash."""
    lines = examples.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("    ") and "--" in line]


def cases() -> list[Any]:
    found: list[tuple[str, ModuleType]] = [(n, importlib.import_module(n)) for n in TOOLS]
    found.append(("calibration", calibration))
    return [
        pytest.param(name, parser_of(module), words[1:], id=f"{name}-{number}")
        for name, module in found
        for number, words in enumerate(commands(module.EXAMPLES))
        if words[0].removesuffix(".py") == name
    ]


def parser_of(module: ModuleType) -> Callable[[list[str]], Any]:
    parse = getattr(module, "parse_arguments", None)
    return parse or (lambda words: module._parser().parse_intermixed_args(words))


def test_all_tools_with_examples_are_looked_at() -> None:
    seen = {case.values[0] for case in cases()}
    assert seen == {*TOOLS, "calibration"} and len(TOOLS) >= 7


@pytest.mark.parametrize(("name", "parse", "words"), cases())
def test_an_example_of_the_help_is_parsed(
    name: str, parse: Callable[[list[str]], Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    options = parse(words)
    wanted = [word for word in words if "=" in word and not word.startswith("--")]
    assert list(getattr(options, "overrides", [])) == wanted, name


@pytest.mark.parametrize(
    ("name", "words", "option", "value"),
    [
        ("analyze_model", ["--config-file", "c", "--convention", "honest"], "conventions",
         ["honest"]),
        ("analyze_model", ["--config-file", "c", "--sizes", "4x4", "--keep-ratios", "0.1"],
         "sizes", ["4x4"]),
        ("run_experiments", ["--data", "shapes", "--seeds", "1", "2"], "seeds", [1, 2]),
        ("run_experiments", ["--data", "shapes", "--criteria", "dense"], "criteria", ["dense"]),
        ("visualize_sparsity", ["--config-file", "c", "--write", "page"], "write", ["page"]),
        ("visualize_predictions", ["--config-file", "c", "--input", "a.jpg"], "input", ["a.jpg"]),
        ("predict", ["--config-file", "c", "--input", "a.jpg"], "input", ["a.jpg"]),
        ("sweep_keep_ratio", ["--config-file", "c", "--keep-ratios", "0.1"], "keep_ratios",
         ["0.1"]),
        ("calibration", ["--config-file", "c", "--keep-ratios", "0.1"], "keep_ratios", [0.1]),
        ("calibration", ["--config-file", "c", "--sizes", "4x6"], "sizes", [(4, 6)]),
    ],
)  # fmt: skip
def test_overrides_stand_behind_lists_too(
    name: str, words: list[str], option: str, value: list[Any]
) -> None:
    module = calibration if name == "calibration" else importlib.import_module(name)
    options = parser_of(module)([*words, "data.seed=1", "model.num_classes=91"])
    assert getattr(options, option) == value
    assert options.overrides == ["data.seed=1", "model.num_classes=91"]
