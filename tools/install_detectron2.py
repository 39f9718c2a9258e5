"""Installs Detectron2 0.6 as a pure Python package that runs with current torch, Pillow and numpy.

Detectron2 is not published under its own name on the Python package index. ``pb1-detectron2`` is a
source package there with the Python files of the official v0.6 tag and without the C++ sources, so
that a plain ``pip install`` of it cannot work. This program gets that source package (pinned by its
sha256) from whatever index pip is configured for, applies ``detectron2_replacements``, packs the
result as a wheel in a temporary folder and installs the wheel. Nothing of the source package is
executed on the way, and an environment that already has a usable Detectron2 is left as it is.

The official route, Detectron2's current main branch, needs none of this and works as well:
``pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from detectron2_replacements import REPLACEMENTS, InstallError, apply_replacements

SOURCE_NAME = "pb1-detectron2"
VERSION = "0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
OLDEST_TORCH = (2, 6)
OFFICIAL_INSTALL = (
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"
)

# What the Python files import when they run. The source package also names packages for its
# Caffe2 export and pins a formatter from 2021; neither is wanted here.
REQUIREMENTS = (
    "Pillow>=7.1",
    "black",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "packaging",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

# Detectron2's visualiser imports cv2 and its set-up does not say so. Any of OpenCV's four packages
# gives it, and two of them would overwrite each other: asked for if none is there.
OPENCV = "opencv-python-headless"

# Where the source tree's folders go in the installed package, as the official set-up has it.
INSTALLED_FOLDERS = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

# Imported after the installation, to prove it usable.
CHECKED_MODULES = (
    "detectron2.config",
    "detectron2.data",
    "detectron2.engine",
    "detectron2.evaluation",
    "detectron2.model_zoo",
    "detectron2.modeling",
    "detectron2.utils.visualizer",
)


def reason_no_torch() -> str | None:
    """Says why the torch and torchvision of this environment will not do; None means they do."""
    try:
        installed = version("torch")
        version("torchvision")
    except PackageNotFoundError as error:
        return f"{error.name} is not installed"
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST_TORCH:
        return f"torch is {installed}, expected {'.'.join(map(str, OLDEST_TORCH))} or newer"
    return None


def find_installed() -> Path | None:
    """Gives the folder of the Detectron2 that Python would import, without importing it."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def reason_unusable(package: Path) -> str | None:
    """Says why the Detectron2 in a folder cannot run here; None means that it can.

    The files are read rather than imported, because importing takes seconds. Any later main
    passes, and so does an official 0.6 that was built with its operators and patched by its user.

    Args:
        package: the folder that holds ``detectron2/__init__.py``.
    """
    for name in ("data/build.py", "engine/defaults.py", "evaluation/coco_evaluation.py"):
        if not package.joinpath(name).is_file():
            return f"{package / name} is missing"
    has_ops = any(package.glob("_C.*"))
    for path, pattern, _, _ in REPLACEMENTS:
        file = package.parent / path
        if not file.is_file():
            continue  # a later main may move what this project does not use
        if has_ops and ("_C" in pattern or "fast_eval_api" in pattern):
            continue
        if "pkg_resources" in pattern:  # for the model zoo alone, which this project does without
            continue
        match = re.search(pattern, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if match:
            return f"{file} has {match.group(0)!r}, which current libraries do not support"
    return None


def download_sdist(folder: Path) -> Path:
    """Gets the pinned source package through pip and gives the path of the file.

    pip builds the metadata of every source package it downloads, which would run the package's
    set-up program; that program needs torch, and names an address that pip refuses. A build
    backend that only states name and version stands in for setuptools during this one call, so
    that pip does all the work (index, mirror, credentials, certificates) and runs nothing.
    """
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    metadata = f"Metadata-Version: 2.1\\nName: {SOURCE_NAME}\\nVersion: {VERSION}\\n"
    dist_info = f"{SOURCE_NAME.replace('-', '_')}-{VERSION}.dist-info"
    (backend / "build_meta.py").write_text(
        "import pathlib\n"
        "class _Backend:\n"
        "    def get_requires_for_build_wheel(self, config_settings=None):\n"
        "        return []\n"
        "    def prepare_metadata_for_build_wheel(self, directory, config_settings=None):\n"
        f"        folder = pathlib.Path(directory, '{dist_info}')\n"
        "        folder.mkdir(parents=True)\n"
        f"        folder.joinpath('METADATA').write_text('{metadata}')\n"
        "        return folder.name\n"
        "__legacy__ = _Backend()\n",
        encoding="utf-8",
    )
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SOURCE_NAME}=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
    environment = dict(os.environ, SETUPTOOLS_USE_DISTUTILS="stdlib")
    environment["PYTHONPATH"] = str(backend.parent)
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
    run_pip(
        ["download", *options, "-d", str(folder), "-r", str(requirements)],
        f"pip could not download {SOURCE_NAME} {VERSION}; is a package index reachable?",
        environment,
    )
    found = list(folder.glob("pb1?detectron2-*.tar.gz"))
    if len(found) != 1:
        raise InstallError(f"pip downloaded {[file.name for file in found]}, expected one .tar.gz")
    return found[0]


def run_pip(arguments: list[str], problem: str, environment: dict[str, str] | None = None) -> None:
    """Runs pip of this Python quietly; on failure shows its output.

    Raises:
        InstallError: pip failed; the message starts with ``problem``.
    """
    command = [sys.executable, "-m", "pip", *arguments]
    result = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode != 0:
        raise InstallError(f"{problem}\n{result.stdout.strip()}")


def check_sha256(sdist: Path) -> None:
    """Raises InstallError unless the file is the pinned one."""
    if not sdist.is_file():
        raise InstallError(f"{sdist}: no such file")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise InstallError(f"{sdist.name}: sha256 is {digest}, expected {SDIST_SHA256}")


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpacks regular files of a source archive below a folder; gives the tree's top folder.

    Raises:
        InstallError: an entry would land outside the folder, or is a link or a device.
    """
    tops = set()
    with tarfile.open(sdist) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if not parts or member.name.startswith("/") or ".." in parts or "\\" in member.name:
                raise InstallError(f"{sdist.name}: unsafe path {member.name!r}; nothing unpacked")
            tops.add(parts[0])
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise InstallError(f"{sdist.name}: {member.name!r} is not a regular file")
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    if len(tops) != 1:
        raise InstallError(f"{sdist.name}: expected one top folder, got {sorted(tops)}")
    return folder / tops.pop()


def build_wheel(source: Path, folder: Path) -> Path:
    """Packs the source tree's Python and config files as a pure wheel; gives the wheel's path."""
    dist_info = f"detectron2-{VERSION}.dist-info"
    entries: dict[str, bytes] = {}
    for origin, destination in INSTALLED_FOLDERS.items():
        for file in sorted((source / origin).rglob("*")):
            if file.suffix in {".py", ".yaml"}:
                inside = file.relative_to(source / origin).as_posix()
                entries[f"{destination}/{inside}"] = file.read_bytes()
    entries[f"{dist_info}/licenses/LICENSE"] = (source / "LICENSE").read_bytes()
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Python files of Detectron2 0.6, adapted to current libraries; no compiled ops",
        "License: Apache-2.0",
        "Requires-Python: >=3.8",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    entries[f"{dist_info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    entries[f"{dist_info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: install_detectron2\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = []
    for name, content in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content)}")
    record.append(f"{dist_info}/RECORD,,")
    entries[f"{dist_info}/RECORD"] = ("\n".join(record) + "\n").encode()
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return wheel


def ensure_opencv() -> None:
    """Installs OpenCV unless one is there."""
    if importlib.util.find_spec("cv2") is None:
        run_pip(["install", OPENCV], f"pip could not install {OPENCV}")


def install_wheel(wheel: Path) -> None:
    """Installs the requirements, then the wheel, then imports what a training run imports.

    The requirements come first: when one of them cannot be had, Detectron2 is not touched.
    """
    run_pip(["install", *REQUIREMENTS], "pip could not install what Detectron2 needs")
    ensure_opencv()
    offline = ["--no-index", "--no-deps", "--force-reinstall", "--find-links", str(wheel.parent)]
    run_pip(["install", *offline, f"detectron2=={VERSION}"], "pip could not install the wheel")
    code = "\n".join(f"import {module}" for module in CHECKED_MODULES)
    result = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    if result.returncode != 0:
        run_pip(["uninstall", "-y", "detectron2"], "pip could not remove what does not import")
        raise InstallError(
            f"Detectron2 {VERSION} does not import here and was removed again:\n"
            f"{result.stderr.strip()}"
        )


def install(sdist: Path | None = None, force: bool = False) -> None:
    """Makes a usable Detectron2 importable in this Python's environment.

    Args:
        sdist: a copy of the source package; None downloads it.
        force: install even when a Detectron2 is there.

    Raises:
        InstallError: says what failed. Until the wheel itself is installed, the environment
            keeps the Detectron2 that it had.
    """
    present = find_installed()
    if present is not None and not force:
        reason = reason_unusable(present)
        if reason is None:
            ensure_opencv()
            print(f"Detectron2 is already there: {present}")
            return
        raise InstallError(
            f"The Detectron2 in {present} is not usable: {reason}.\n"
            f"Update it ({OFFICIAL_INSTALL}), or replace it by running this program with --force."
        )
    torch_problem = reason_no_torch()
    if torch_problem:
        raise InstallError(f"{torch_problem}; install torch and torchvision first.")
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        folder = Path(name)
        if sdist is None:
            print(
                f"Downloading the Python files of Detectron2 {VERSION} ({SOURCE_NAME})", flush=True
            )
            sdist = download_sdist(folder)
        check_sha256(sdist)
        source = unpack(sdist, folder / "source")
        apply_replacements(source)
        wheel = build_wheel(source, folder)
        print(f"Installing Detectron2 {VERSION} and what it needs", flush=True)
        install_wheel(wheel)
    print(f"Detectron2 {VERSION} is installed and imports.")


def check() -> None:
    """Raises InstallError unless this environment has torch, torchvision and Detectron2 to use."""
    reason = reason_no_torch()
    if reason is None:
        present = find_installed()
        reason = "detectron2 is not installed" if present is None else reason_unusable(present)
    if reason is not None:
        raise InstallError(reason)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; gives the exit status."""
    parser = argparse.ArgumentParser(
        description="Install Detectron2 0.6, adapted to current torch, Pillow and numpy."
    )
    parser.add_argument("--force", action="store_true", help="replace the Detectron2 that is there")
    parser.add_argument("--sdist", type=Path, help="use this copy of the source package")
    parser.add_argument(
        "--check",
        action="store_true",
        help="install nothing; status 0 if torch 2.6+, torchvision and Detectron2 are there",
    )
    options = parser.parse_args(arguments)
    try:
        if options.check:
            check()
        else:
            install(options.sdist, options.force)
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
