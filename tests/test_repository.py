"""House rules that a tool can check: file sizes, names, leftovers, true documents."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "projects" / "SparseDETR" / "sparse_detr"
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
SOURCE_SUFFIXES = {".py", ".cpp", ".cu", ".cuh", ".h"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".md", ".toml", ".txt", ".cfg", ".yaml", ".yml", ".sh"}


def files_below(*folders: str, suffixes: set[str]) -> list[Path]:
    """Lists this project's files with one of the suffixes; built files and caches are left out."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            generated = {"__pycache__", "build", "output"} & set(path.relative_to(ROOT).parts)
            egg_info = any(part.endswith(".egg-info") for part in path.parts)
            if path.suffix in suffixes and path.is_file() and not generated and not egg_info:
                found.append(path)
    return found


def source_files() -> list[Path]:
    folders = ("projects", "configs", "csrc", "tools", "tests")
    return files_below(*folders, suffixes=SOURCE_SUFFIXES) + sorted(ROOT.glob("*.py"))


def text_files() -> list[Path]:
    folders = ("projects", "configs", "csrc", "tools", "tests", "docs", "requirements", ".ci")
    top = [path for path in ROOT.iterdir() if path.suffix in TEXT_SUFFIXES and path.is_file()]
    named = [ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "NOTICE"]
    return files_below(*folders, suffixes=TEXT_SUFFIXES) + sorted(top) + named


def documents() -> list[Path]:
    return files_below("docs", "projects", suffixes={".md"}) + sorted(ROOT.glob("*.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_matching(paths: list[Path], pattern: str) -> list[str]:
    """Lists `file:line: text` of every line that matches."""
    found = []
    for path in paths:
        if path == Path(__file__).resolve():  # it has to spell out what it looks for
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if re.search(pattern, line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:80]}")
    return found


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Gives each function's name and its length in lines, decorators and docstring aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            yield node.name, length


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in source_files()}
    assert lengths
    assert {n: c for n, c in lengths.items() if c > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    paths = [path for path in source_files() if path.suffix == ".py"]
    long = {
        f"{name_of(path)}:{name}": length
        for path in paths
        for name, length in functions(path)
        if length > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_every_file_is_named_after_what_it_holds() -> None:
    vague = {"utils", "util", "misc", "helpers", "helper", "common", "tools", "stuff"}
    inside = files_below("projects", "tools", "tests", suffixes={".py"})
    assert [name_of(path) for path in inside if path.stem in vague] == []


def test_a_folder_of_the_package_holds_more_than_one_module() -> None:
    folders = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    alone = set()
    for folder in folders:
        modules = [path for path in folder.rglob("*.py") if path.name != "__init__.py"]
        if len(modules) < 2:
            alone.add(folder.relative_to(PACKAGE).as_posix())
    assert folders
    assert not alone


def test_nothing_is_left_unfinished() -> None:
    pattern = r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError"
    assert lines_matching(source_files(), pattern) == []


def test_no_document_has_a_place_left_to_fill() -> None:
    assert lines_matching(documents(), "<!--") == []


def test_no_except_clause_catches_everything() -> None:
    paths = [path for path in source_files() if path.suffix == ".py"]
    assert lines_matching(paths, r"except\s*:|except\s+BaseException") == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    pattern = r"(?<![\w.])/(work|root|home|Users|mnt)/\w"
    assert lines_matching(text_files(), pattern) == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for path in documents():
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:|#", target):
                continue
            if not (path.parent / target.split("#")[0]).exists():
                broken.append(f"{name_of(path)}: {target}")
    assert broken == []


def test_every_make_command_in_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, flags=re.MULTILINE))
    assert {"demo", "test", "setup", "lint"} <= targets
    unknown = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"(?:^|`|\$ )make ([a-z][a-z0-9-]*)", text, flags=re.MULTILINE):
            if name not in targets:
                unknown.append(f"{name_of(path)}: make {name}")
    assert unknown == []


def test_every_program_named_in_the_documents_exists() -> None:
    missing = []
    for path in documents():
        for name in re.findall(
            r"python[\d.]* ((?:tools/)?\w+\.py)", path.read_text(encoding="utf-8")
        ):
            if not (ROOT / name).is_file():
                missing.append(f"{name_of(path)}: {name}")
    assert missing == []


def test_the_changelog_describes_the_version_of_the_package() -> None:
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"', source, flags=re.MULTILINE)
    assert version is not None
    headings = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert headings[0] == version.group(1)


def test_licence_and_credits_are_in_place() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for work in ("Sparse DETR", "Deformable DETR", "Efficient DETR", "Swin", "Detectron2"):
        assert work in notice


def test_ci_runs_the_makefile_and_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and "make test" in text
    assert script.stat().st_mode & 0o111


def test_built_and_downloaded_files_are_not_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is tracked cannot be told")
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wrong = [n for n in listing if re.search(r"(^|/)(\.venv|output|build)/|\.(so|pth|pkl|o)$", n)]
    assert wrong == []
