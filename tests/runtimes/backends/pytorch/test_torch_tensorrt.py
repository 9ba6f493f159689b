"""Torch-TensorRT under doubles: the export for a fixed size is real, the compiler hands it back as it is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from runtimes import Artifact
from runtimes.backends.pytorch import backend as pytorch
from runtimes.backends.pytorch import torch_tensorrt_backend
from runtimes.backends.pytorch.cuda_session import CudaTorchSession
from runtimes.errors import CompatibilityError, ResourceError
from runtimes.protocol import Array, Options
from tests.refusals import refuses
from tests.runtimes.backends.pytorch.double import Recorder, installed

CUDA = Options("cuda", 1)

KEYWORDS = {"arg_inputs", "device", "disable_tf32", "min_block_size", "require_full_compilation"}
"""Those given, which ``torch_tensorrt.dynamo.compile`` has in 2.11.0, 2.13.0 and 2.14.0, by their sources."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(pytorch, "move_program", lambda program, _: program)
    return installed(monkeypatch)


class Compiler:
    """Stands for ``torch_tensorrt.dynamo.compile``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.batches: list[int] = []
        self._failure = failure
        library: Any = ModuleType("torch_tensorrt")
        library.__version__ = "2.13.0"
        library.dynamo = SimpleNamespace(compile=self)
        monkeypatch.setitem(sys.modules, "torch_tensorrt", library)

    def __call__(self, program: torch.export.ExportedProgram, **keywords: Any) -> Callable[..., torch.Tensor]:
        assert set(keywords) == KEYWORDS
        assert keywords["disable_tf32"]
        (example,) = keywords["arg_inputs"]
        assert {type(size) for node in program.graph.nodes for size in getattr(node.meta.get("val"), "shape", ())} == {
            int
        }
        assert not example.is_inference()
        if self._failure is not None:
            raise self._failure
        self.batches.append(len(example))
        return program.module()


def images(artifact: Artifact, batch: int) -> dict[str, Array]:
    return {"input": artifact.vectors().inputs[[0] * batch]}


@pytest.mark.parametrize("graphs", [False, True])
def test_each_first_batch_size_has_an_engine(
    pt2_artifact: Artifact, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    compiler = Compiler(monkeypatch)
    session = torch_tensorrt_backend.BACKEND.open(pt2_artifact, replace(CUDA, cuda_graphs=graphs))
    assert isinstance(session, CudaTorchSession)
    about = session.description
    assert (about.backend, about.version, about.precision) == ("torch-tensorrt", "2.13.0", "float32")
    assert about.provider == ("torch_tensorrt CUDA graphs" if graphs else "torch_tensorrt")
    monkeypatch.setattr("runtimes.backends.pytorch.batch_sizes.FIXED_BATCHES", 2)
    vectors = pt2_artifact.vectors()
    for batch in (1, 3, 1, 4):
        given = session.run(images(pt2_artifact, batch))["logits"]
        expected = vectors.logits[[0] * batch]
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert compiler.batches == [1, 3]
    assert recorder.events.count("replay") == (3 if graphs else 0)
    (note,) = session.description.notes
    assert note.code == "batch-unprepared"
    assert recorder.faults == []


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (ValueError("no converter\nand more"), CompatibilityError, "torch-tensorrt-cannot-compile"),
        (torch.OutOfMemoryError("out of memory"), ResourceError, "pytorch-out-of-memory"),
    ],
)
def test_what_cannot_be_compiled_is_an_error(
    pt2_artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    kind: type[CompatibilityError] | type[ResourceError],
    code: str,
) -> None:
    Compiler(monkeypatch, failure)
    session = torch_tensorrt_backend.BACKEND.open(pt2_artifact, CUDA)
    with refuses(kind, code, str(failure).splitlines()[0]):
        session.run(images(pt2_artifact, 1))


def test_without_the_library_the_row_says_how_to_get_it() -> None:
    if importlib.util.find_spec("torch_tensorrt") is not None:
        pytest.skip("Torch-TensorRT is installed")
    missing = torch_tensorrt_backend.BACKEND.missing()
    assert missing is not None
    assert missing.code == "torch-tensorrt-missing"
    assert "pip install torch-tensorrt" in missing.sentence
