"""What an app pays for: NumPy, and one backend's library once it opens something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import runtimes
import runtimes.backends
from runtimes import Artifact
from tests.conftest import FakeFactory

REPO = Path(__file__).resolve().parents[2]
HEAVY = [
    *("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"),
    *("PIL", "click", "rich", "onnxscript", "safetensors", "nncf"),
]


def fresh(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, *arguments: object) -> set[str]:
    """The heavy libraries that a fresh interpreter has imported after ``code``."""
    listing = f"\nimport json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    return set(json.loads(fresh(code + listing, *arguments).splitlines()[-1]))


def test_importing_runtimes_imports_no_library() -> None:
    assert loaded("import runtimes, runtimes.errors") == set()


@pytest.mark.parametrize(
    "code", ["import runtimes", "from runtimes.errors import UsageError", "import runtimes.backends"]
)
def test_importing_the_package_imports_no_numpy(code: str) -> None:
    assert fresh(f"{code}\nimport sys; print('numpy' in sys.modules)") == "False\n"


def test_each_public_name_is_found_and_listed() -> None:
    names = json.loads(fresh("import json, runtimes; print(json.dumps([runtimes.__all__, dir(runtimes)]))"))
    assert set(names[0]) <= set(names[1])
    for name in runtimes.__all__:
        assert getattr(runtimes, name).__name__ == name
    assert runtimes.backends.__name__ == "runtimes.backends"
    with pytest.raises(AttributeError, match="nothing"):
        runtimes.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_opening_an_onnx_file_imports_little_of_other_backends(onnx_artifact: Artifact) -> None:
    code = "import sys, runtimes; runtimes.open(sys.argv[1], 'onnxruntime').close(); print(*sys.modules)"
    modules = set(fresh(code, onnx_artifact.path).split())
    others = {"runtimes.backends.tensorrt.open", "runtimes.backends.pytorch.cuda_session", "runtimes.tensors.cuda"}
    assert not modules & {*others, "runtimes.classifier", "runtimes.images.preprocessing", "logging", "zipfile"}


def test_asking_what_is_there_imports_no_library() -> None:
    assert loaded("import runtimes\nfor row in runtimes.available_backends(): row.missing()") == set()


@pytest.mark.parametrize(("backend", "allowed"), [("onnxruntime", {"onnxruntime"}), ("openvino", {"openvino"})])
def test_opening_an_artifact_imports_its_backends_library_alone(
    onnx_artifact: Artifact, backend: str, allowed: set[str]
) -> None:
    code = """
import sys, numpy as np, runtimes
with runtimes.open(sys.argv[1], sys.argv[2]) as runtime:
    assert runtime.infer({"input": np.zeros((1, 3, 32, 32), "float32")})["logits"].shape == (1, 10)
    runtime.artifact.vectors()
"""
    assert loaded(code, onnx_artifact.path, backend) == allowed


@pytest.mark.parametrize(("backend", "allowed"), [("onnxruntime", {"onnxruntime"}), ("openvino", {"openvino"})])
def test_profiling_an_artifact_imports_its_backends_library_alone(
    onnx_artifact: Artifact, backend: str, allowed: set[str]
) -> None:
    code = """
import sys, runtimes
from runtimes.protocol import summarise_precisions
assert summarise_precisions(runtimes.profile(sys.argv[1], backend=sys.argv[2])) == "float32"
"""
    assert loaded(code, onnx_artifact.path, backend) == allowed


def test_profiling_a_script_imports_no_library(fake_artifact: FakeFactory) -> None:
    assert loaded("import sys, runtimes; assert runtimes.profile(sys.argv[1])", fake_artifact().path) == set()


UNIMPORTABLE = f"""
import importlib.abc, sys
class Nowhere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return None
for name in {HEAVY}:
    assert name not in sys.modules
found = sys.meta_path[:]
class Hiding(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY}:
            return None
        return next((spec for finder in found if (spec := finder.find_spec(name, path, target)) is not None), None)
sys.meta_path[:] = [Hiding()]
import runtimes
"""


def test_without_any_library_it_imports_and_says_what_to_install() -> None:
    out = fresh(UNIMPORTABLE + "for row in runtimes.available_backends(): print(row.name, row.missing())")
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    assert lines == {
        "tensorrt": "tensorrt is not installed (pip install 'rexport[tensorrt]')",
        "tensorrt-rtx": "tensorrt_rtx is not installed (pip install 'rexport[tensorrt-rtx]')",
        "onnxruntime-tensorrt": "onnxruntime is not installed (pip install 'rexport[gpu]')",
        "onnxruntime": "onnxruntime is not installed (pip install 'rexport[cpu]')",
        "openvino": "openvino is not installed (pip install 'rexport[openvino]')",
        "pytorch": "torch is not installed (pip install 'rexport[export]')",
        "inductor": "torch is not installed (pip install 'rexport[export]')",
    }


def test_without_any_library_opening_is_a_backend_error(onnx_artifact: Artifact, pt2_artifact: Artifact) -> None:
    code = (
        UNIMPORTABLE
        + """
for path, backend in ((sys.argv[1], None), (sys.argv[1], "openvino"), (sys.argv[2], None), (sys.argv[2], "inductor")):
    try:
        runtimes.open(path, backend)
    except runtimes.RexportError as error:
        print(type(error).__name__, error.exit_code, error)
"""
    )
    lines = fresh(code, onnx_artifact.path, pt2_artifact.path).splitlines()
    assert len(lines) == 4
    assert all(line.startswith("BackendUnavailableError 5 ") for line in lines)
    assert "nothing here opens onnx files: onnxruntime: onnxruntime is not installed (pip install" in lines[0]
    assert "backend openvino cannot run here: openvino is not installed (pip install 'rexport[openvino]')" in lines[1]
    assert "rexport[export]" in lines[2]
    assert "backend inductor cannot run here: torch is not installed" in lines[3]


@pytest.mark.parametrize(
    ("library", "backend"),
    [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("torch", "pytorch"), ("torch", "inductor")],
)
def test_a_library_that_is_there_and_broken_is_a_backend_error(
    onnx_artifact: Artifact, pt2_artifact: Artifact, tmp_path: Path, library: str, backend: str
) -> None:
    (tmp_path / f"{library}.py").write_text("raise ImportError('libsomething.so.1: cannot open shared object file')")
    code = """
import sys
sys.path.insert(0, sys.argv[3])
import runtimes
try:
    runtimes.open(sys.argv[1], sys.argv[2])
except runtimes.RexportError as error:
    print(type(error).__name__, error)
"""
    made = pt2_artifact if library == "torch" else onnx_artifact
    out = fresh(code, made.path, backend, tmp_path)
    assert out.startswith(
        f"BackendUnavailableError {library} is installed and cannot be imported: libsomething.so.1: cannot open"
    )
    assert "pip install --force-reinstall 'rexport[" in out


def test_a_script_opens_without_numpys_friends(fake_artifact: FakeFactory) -> None:
    code = "import sys, runtimes; runtimes.open(sys.argv[1]).close()"
    assert loaded(code, fake_artifact().path) == set()
