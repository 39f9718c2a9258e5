"""Checkpoint files: nothing half-written, nothing executed, nothing damaged is loaded.

Role in the flow: the only place that opens files of weights, for the backbone's too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .errors import UserError

REFUSED_SUFFIXES = (".pkl", ".pickle", ".pyth")

# How torch names what its weights-only reader met and does not know.
_UNKNOWN_NAME = re.compile(r"(?:GLOBAL|unsupported GLOBAL|global) ([\w.]+) (?:was|whose)")


class UnreadableCheckpointError(UserError):
    """A checkpoint that is missing, damaged, of a foreign kind, or that wants to run code."""


def write_checkpoint(content: dict[str, Any], path: Path) -> str:
    """Writes ``content`` so that ``path`` is either the old file or the complete new one.

    The data goes to a temporary file in the same folder, is flushed to the disk and then renamed.
    When that fails (disk full), the temporary file is removed and the old one stays.

    Args:
        content: Plain data and tensors.
        path: The file.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        return write_tensors(content, path)
    except OSError as error:
        raise UserError(
            f"cannot write the checkpoint {path}: {error}; the earlier ones are untouched"
        ) from error


def write_tensors(content: dict[str, Any], path: Path) -> str:
    """Does the work of :func:`write_checkpoint`, for files that are no checkpoints too.

    Args:
        content: Plain data and tensors.
        path: The file.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        digest = file_digest(temporary)
    sync_directory(path.parent)
    return digest


def write_text(text: str, path: Path) -> None:
    """Writes a small text file so that ``path`` is either the old or the new one.

    Args:
        text: The content.
        path: The file.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside ``path``; the file takes its place where the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Makes a rename in ``path`` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Gives the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_checkpoint(
    path: str | os.PathLike[str], digest: str | None = None, allowed: Sequence[type] = ()
) -> dict[str, Any]:
    """Gives the content of a checkpoint file, on the CPU. Code in the file is never run.

    Args:
        path: The file.
        digest: The SHA-256 it must have; None where none is known.
        allowed: Classes of plain records that may occur beside tensors and plain data.

    Returns:
        The dict that the file holds.

    Raises:
        UnreadableCheckpointError: The message says which way the file is wrong.
    """
    file = Path(path)
    if not file.is_file():
        raise UnreadableCheckpointError(f"checkpoint {file} does not exist")
    if file.suffix in REFUSED_SUFFIXES:
        raise UnreadableCheckpointError(
            f"checkpoint {file} is refused: opening {file.suffix} files can run code in them; "
            "convert it to a .pth "
            "file of tensors first"
        )
    if digest is not None and file_digest(file) != digest:
        raise UnreadableCheckpointError(
            f"checkpoint {file} is damaged (its checksum is not the one it was saved with)"
        )
    try:
        content = _load(file, allowed)
    except pickle.UnpicklingError as error:
        raise UnreadableCheckpointError(_refusal(file, error)) from error
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        LookupError,
        ValueError,
        AttributeError,
        AssertionError,
        OSError,
        TypeError,
        struct.error,
    ) as error:
        raise UnreadableCheckpointError(_damage(file, error)) from error
    if not isinstance(content, dict):
        raise UnreadableCheckpointError(
            f"checkpoint {file} holds {type(content).__name__}, expected a dict with the weights"
        )
    return content


def _load(file: Path, allowed: Sequence[type]) -> Any:
    """Reads without running anything; torch's advice to read in another way is not passed on."""
    names: list[Any] = [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in allowed]
    with warnings.catch_warnings(), torch.serialization.safe_globals(names):
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(file: Path, error: pickle.UnpicklingError) -> str:
    """Says why a file is refused, and the way out where it is one that the converter reads."""
    unknown = _UNKNOWN_NAME.search(str(error))
    if unknown is None:
        return f"checkpoint {file} is refused: it is no checkpoint of tensors, or a damaged one"
    message = (
        f"checkpoint {file} is refused: it holds more than tensors and plain data "
        f"({unknown[1]}); nothing of it was run"
    )
    if unknown[1] == "argparse.Namespace":
        message += ". If it is a released detector, tools/convert_checkpoint.py converts it"
    return message


def _damage(file: Path, error: Exception) -> str:
    """Says what is wrong with a file that is no pickle of tensors."""
    text = _first_line(error)
    if "weights_only" in text:
        kind = "a TorchScript program" if "TorchScript" in text else "a tar archive of early torch"
        return (
            f"checkpoint {file} is refused: it is {kind}, which cannot be read without running "
            "code; save its tensors with torch.save first"
        )
    reason = f" ({text})" if isinstance(error, (RuntimeError, EOFError, OSError)) else ""
    return (
        f"checkpoint {file} cannot be read, it is damaged or incomplete, or no checkpoint{reason}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
