"""What the Detectron2 installer promises: exact replacements, safe unpacking, an intact wheel."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import detectron2_replacements as replacements
import install_detectron2 as installer

TOOL = Path(installer.__file__)
LINEAR = replacements.Replacement("detectron2/a.py", r"\bImage\.LINEAR\b", "Image.BILINEAR", 1)


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes the named files below a folder and gives the folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def make_archive(path: Path, members: list[tarfile.TarInfo]) -> Path:
    """Writes a .tar.gz whose regular files each hold one byte."""
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if member.isreg():
                member.size = 1
                archive.addfile(member, io.BytesIO(b"x"))
            else:
                archive.addfile(member)
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def make_package(root: Path, **extra: str) -> Path:
    """Writes the few files by which an installed Detectron2 is judged."""
    files = {
        "detectron2/__init__.py": "",
        "detectron2/data/build.py": "",
        "detectron2/engine/defaults.py": "",
        "detectron2/evaluation/coco_evaluation.py": "",
    }
    files.update({f"detectron2/{name}": text for name, text in extra.items()})
    return write(root, files) / "detectron2"


def test_a_replacement_changes_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"detectron2/a.py": "x = Image.LINEAR\n"})
    replacements.apply_replacements(tmp_path, (LINEAR,))
    assert (tmp_path / "detectron2/a.py").read_text() == "x = Image.BILINEAR\n"


@pytest.mark.parametrize("text", ["x = Image.BICUBIC\n", "Image.LINEAR + Image.LINEAR\n"])
def test_a_replacement_that_matches_another_number_of_times_names_file_and_text(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path, {"detectron2/a.py": text})
    with pytest.raises(installer.InstallError, match=r"detectron2/a\.py: expected .*LINEAR"):
        replacements.apply_replacements(tmp_path, (LINEAR,))


def test_a_replacement_in_a_missing_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(installer.InstallError, match=r"detectron2/a\.py: missing"):
        replacements.apply_replacements(tmp_path, (LINEAR,))


def test_numpy_aliases_are_replaced_and_sized_types_are_kept(tmp_path: Path) -> None:
    path = "detectron2/data/build.py"
    aliases = next(item for item in replacements.REPLACEMENTS if item.path == path)
    write(tmp_path, {path: "np.int, np.float, np.int64, np.float32, np.int_\n"})
    replacements.apply_replacements(tmp_path, (aliases,))
    assert (tmp_path / path).read_text() == "int, float, np.int64, np.float32, np.int_\n"


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside.py"),
        tarfile.TarInfo("top/../../outside.py"),
        tarfile.TarInfo("/outside.py"),
        tarfile.TarInfo("top\\..\\outside.py"),
        link("top/link.py", "../../outside.py"),
    ],
    ids=lambda member: f"{member.name}",
)
def test_an_archive_that_would_write_outside_its_folder_is_refused(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    archive = make_archive(tmp_path / "bad.tar.gz", [member])
    target = tmp_path / "a" / "b"
    with pytest.raises(installer.InstallError, match=r"bad\.tar\.gz"):
        installer.unpack(archive, target)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"bad.tar.gz"}


def test_a_well_formed_archive_is_unpacked_below_the_folder(tmp_path: Path) -> None:
    members = [tarfile.TarInfo("top/setup.py"), tarfile.TarInfo("top/detectron2/a.py")]
    archive = make_archive(tmp_path / "good.tar.gz", members)
    top = installer.unpack(archive, tmp_path / "out")
    assert top == tmp_path / "out" / "top"
    assert (top / "detectron2" / "a.py").read_bytes() == b"x"


def test_a_file_with_another_checksum_is_refused_before_anything_is_installed(
    tmp_path: Path,
) -> None:
    sdist = tmp_path / "pb1-detectron2-0.6.tar.gz"
    sdist.write_bytes(b"not the package")
    command = [sys.executable, str(TOOL), "--force", "--sdist", str(sdist)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert installer.SDIST_SHA256 in result.stderr
    assert "Traceback" not in result.stderr


def test_the_wheel_holds_package_projects_and_configs_and_its_record_is_true(
    tmp_path: Path,
) -> None:
    source = write(
        tmp_path / "source",
        {
            "LICENSE": "licence\n",
            "setup.py": "raise SystemExit\n",
            "detectron2/__init__.py": '__version__ = "0.6"\n',
            "detectron2/model_zoo/configs/Base.yaml": "a: 1\n",
            "detectron2/layers/notes.md": "not installed\n",
            "projects/PointRend/point_rend/__init__.py": "",
        },
    )
    wheel = installer.build_wheel(source, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    info = "detectron2-0.6.dist-info"
    assert set(contents) == {
        "detectron2/__init__.py",
        "detectron2/model_zoo/configs/Base.yaml",
        "detectron2/projects/point_rend/__init__.py",
        f"{info}/licenses/LICENSE",
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/RECORD",
    }
    for name, digest, size in csv.reader(contents[f"{info}/RECORD"].decode().splitlines()):
        if name.endswith("/RECORD"):
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest())
        assert digest == "sha256=" + expected.decode().rstrip("=")
        assert int(size) == len(contents[name])


def test_the_detectron2_of_this_environment_is_usable() -> None:
    present = installer.find_installed()
    assert present is not None
    assert installer.reason_unusable(present) is None
    installer.check()


def test_an_installed_detectron2_is_left_alone_without_importing_torch() -> None:
    command = [sys.executable, str(TOOL)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode == 0, result.stderr
    assert "already there" in result.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", str(TOOL), "--check"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    modules = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "argparse" in modules
    assert "torch" not in modules  # importing it is what would take seconds


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("data/transforms/transform.py", "interp = Image.LINEAR\n", "Image.LINEAR"),
        ("data/build.py", "x = np.zeros(1, dtype=np.int)\n", "np.int"),
        ("layers/deform_conv.py", "from detectron2 import _C\n", "import _C"),
    ],
)
def test_an_unpatched_detectron2_is_reported_with_file_and_text(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    reason = installer.reason_unusable(make_package(tmp_path, **{name: text}))
    assert reason is not None
    assert name in reason and found in reason


def test_optional_or_compiled_operators_make_detectron2_usable(tmp_path: Path) -> None:
    guarded = "try:\n    from detectron2 import _C\nexcept ImportError:\n    _C = None\n"
    plain = make_package(tmp_path / "plain", **{"layers/deform_conv.py": guarded})
    assert installer.reason_unusable(plain) is None
    imported = {"layers/deform_conv.py": "from detectron2 import _C\n"}
    compiled = make_package(tmp_path / "compiled", **imported)
    (compiled / "_C.cpython-311-x86_64-linux-gnu.so").touch()
    assert installer.reason_unusable(compiled) is None


def test_an_incomplete_detectron2_is_reported(tmp_path: Path) -> None:
    package = make_package(tmp_path)
    (package / "engine" / "defaults.py").unlink()
    reason = installer.reason_unusable(package)
    assert reason is not None and "defaults.py is missing" in reason


@pytest.mark.parametrize(("installed", "usable"), [("2.5.1", False), ("2.11.0+cu130", True)])
def test_torch_older_than_the_oldest_supported_is_reported(
    monkeypatch: pytest.MonkeyPatch, installed: str, usable: bool
) -> None:
    monkeypatch.setattr(installer, "version", lambda name: installed)
    assert (installer.reason_no_torch() is None) == usable
