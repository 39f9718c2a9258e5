"""Which implementation of the operators runs, and that one line says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from deform_attn_inputs import make_inputs
from interpreter import run_python

from sparse_detr.layers import backend
from sparse_detr.layers.ms_deform_attn import ms_deform_attn

needs_native = pytest.mark.skipif(
    not backend.extension_status.loaded,
    reason=f"the compiled operators are not there: {backend.extension_status.problem}",
)

ABSENT = backend.ExtensionStatus(False, False, "", False, "ImportError: no such file")


@pytest.fixture
def fresh_announcements(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend, "_announced", set())
    yield


@needs_native
def test_the_compiled_operators_serve_the_cpu_where_they_were_built() -> None:
    with backend.use_backend(None):
        assert backend.backend_for("cpu") == "native"


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP is required of the Linux builds")
def test_openmp_is_compiled_in_and_linked() -> None:
    assert backend.extension_status.with_openmp
    import sparse_detr._C as library

    content = Path(library.__file__).read_bytes()
    # The call that starts the threads of a parallel region, in GCC's and in clang's runtime.
    assert b"GOMP_parallel" in content or b"__kmpc_fork_call" in content


def test_without_the_library_the_torch_path_runs_and_the_line_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fresh_announcements: None
) -> None:
    monkeypatch.setattr(backend, "extension_status", ABSENT)
    with caplog.at_level(logging.INFO, "sparse_detr"), backend.use_backend(None):
        value, locations, weights = make_inputs([(3, 4)])
        assert ms_deform_attn(value, [(3, 4)], locations, weights).isfinite().all()
    (record,) = caplog.records
    assert "backend on cpu: torch" in record.message
    assert "no such file" in record.message


def test_the_backend_is_named_once_per_device_type(
    caplog: pytest.LogCaptureFixture, fresh_announcements: None
) -> None:
    inputs = make_inputs([(3, 4)])
    with caplog.at_level(logging.INFO, "sparse_detr"):
        for _ in range(3):
            ms_deform_attn(inputs[0], [(3, 4)], inputs[1], inputs[2])
    assert len(caplog.records) == 1
    assert "deformable attention backend on cpu: " in caplog.records[0].message


def test_asking_by_name_for_operators_that_are_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "extension_status", ABSENT)
    with (
        backend.use_backend("native"),
        pytest.raises(RuntimeError, match=r"could not be loaded .*no such file"),
    ):
        backend.backend_for("cpu")


def test_a_device_without_kernels_falls_back_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_only = backend.ExtensionStatus(True, False, "", True, None)
    monkeypatch.setattr(backend, "extension_status", cpu_only)
    with backend.use_backend(None):
        assert backend.backend_for("cuda") == "torch"
        assert "built without cuda kernels" in backend.describe_backend("cuda")
        assert backend.backend_for("cpu") == "native"


def test_a_forced_backend_ends_with_its_block_even_after_an_error() -> None:
    automatic = backend.describe_backend("cpu")
    with pytest.raises(KeyError), backend.use_backend("torch"):
        forced = backend.describe_backend("cpu")
        raise KeyError
    assert "asked for by name" in forced
    assert backend.describe_backend("cpu") == automatic


def test_an_unknown_backend_name_is_an_error_that_lists_the_names() -> None:
    with (
        pytest.raises(ValueError, match="got 'fast', expected one of native, torch"),
        backend.use_backend("fast"),
    ):
        pass


def test_the_environment_variable_forces_the_backend() -> None:
    program = "from sparse_detr.layers import backend; print(backend.backend_for('cpu'))"
    result = run_python(program, SPARSE_DETR_BACKEND="torch")
    assert result.stdout.strip() == "torch", result.stderr
    result = run_python(program, SPARSE_DETR_BACKEND="quick")
    assert result.returncode != 0
    assert "SPARSE_DETR_BACKEND: got 'quick', expected one of native, torch" in result.stderr


def test_a_library_that_does_not_load_leaves_the_torch_path() -> None:
    # As after an update of torch: the file is there, and importing it fails.
    program = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "sparse_detr._C":
            raise ImportError("undefined symbol: _ZN3c10")
sys.meta_path.insert(0, Broken())
import torch
from sparse_detr.layers.ms_deform_attn import ms_deform_attn
from sparse_detr.layers.backend import describe_backend
out = ms_deform_attn(torch.ones(1, 4, 1, 2), [(2, 2)], torch.full((1, 1, 1, 1, 1, 2), 0.5),
                     torch.ones(1, 1, 1, 1, 1))
print(out.tolist(), describe_backend("cpu"))
"""
    result = run_python(program, SPARSE_DETR_BACKEND="")
    assert "[[[1.0, 1.0]]]" in result.stdout, result.stderr
    assert "torch (slower; the compiled operators could not be loaded" in result.stdout
    assert "undefined symbol" in result.stdout


def test_a_library_of_an_older_version_leaves_the_torch_path_and_asks_for_a_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = ModuleType("sparse_detr._C")
    older.__file__ = "_C.so"
    monkeypatch.setitem(sys.modules, "sparse_detr._C", older)
    status = backend.load_extension()
    assert not status.loaded
    assert status.problem is not None
    assert "_C.so is of an older version, build it again" in status.problem


def test_threads_are_torchs_own() -> None:
    if not backend.extension_status.with_openmp:
        pytest.skip("built without OpenMP")
    assert "OpenMP" in torch.__config__.parallel_info()
