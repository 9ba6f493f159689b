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
    *("PIL", "click", "rich", "onnxscript", "safetensors", "nncf", "pyarrow", "ray"),
]


def fresh(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_libraries(code: str, *arguments: object) -> set[str]:
    """The heavy libraries that a fresh interpreter has imported after ``code``."""
    listing = f"\nimport json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    return set(json.loads(fresh(code + listing, *arguments).splitlines()[-1]))


def test_importing_runtimes_imports_no_library() -> None:
    assert imported_libraries("import runtimes, runtimes.errors") == set()


def test_importing_labelling_imports_no_library() -> None:
    assert imported_libraries("import runtimes.labelling.label, runtimes.labelling.in_process") == set()


@pytest.mark.parametrize("module", ["runtimes", "runtimes.errors", "runtimes.backends"])
def test_importing_the_package_imports_no_numpy(module: str) -> None:
    code = f"import sys, {module}; print('numpy' in sys.modules)"
    assert fresh(code) == "False\n"


def test_each_public_name_is_found_and_listed() -> None:
    names = json.loads(fresh("import json, runtimes; print(json.dumps([runtimes.__all__, dir(runtimes)]))"))
    assert set(names[0]) <= set(names[1])
    for name in runtimes.__all__:
        assert getattr(runtimes, name).__name__ == name
    assert runtimes.backends.__name__ == "runtimes.backends"
    with pytest.raises(AttributeError, match="nothing"):
        runtimes.nothing  # noqa: B018


def test_opening_an_onnx_file_imports_little_of_other_backends(onnx_artifact: Artifact) -> None:
    code = "import sys, runtimes; runtimes.open(sys.argv[1], 'onnxruntime').close(); print(*sys.modules)"
    modules = set(fresh(code, onnx_artifact.path).split())
    others = {"runtimes.backends.tensorrt.open", "runtimes.backends.pytorch.cuda_session", "runtimes.tensors.cuda"}
    assert not modules & {*others, "runtimes.classifier", "runtimes.images.preprocessing", "logging", "zipfile"}


def test_asking_what_is_there_imports_no_library() -> None:
    code = "import runtimes\nfor row in runtimes.available_backends(): row.missing()"
    assert imported_libraries(code) == set()


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
    assert imported_libraries(code, onnx_artifact.path, backend) == allowed


@pytest.mark.parametrize(("backend", "allowed"), [("onnxruntime", {"onnxruntime"}), ("openvino", {"openvino"})])
def test_profiling_imports_the_backends_library_alone(onnx_artifact: Artifact, backend: str, allowed: set[str]) -> None:
    code = """
import sys, runtimes
from runtimes.protocol import summarise_precisions
assert summarise_precisions(runtimes.profile(sys.argv[1], backend=sys.argv[2])) == "float32"
"""
    assert imported_libraries(code, onnx_artifact.path, backend) == allowed


def test_profiling_a_script_imports_no_library(fake_artifact: FakeFactory) -> None:
    code = "import sys, runtimes; assert runtimes.profile(sys.argv[1])"
    assert imported_libraries(code, fake_artifact().path) == set()


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
    code = """
import json
print(json.dumps({row.name: row.missing() for row in runtimes.available_backends()}))
"""
    reasons = json.loads(fresh(UNIMPORTABLE + code))
    assert {name: code for name, (code, _) in reasons.items()} == dict.fromkeys(LIBRARIES, "library-missing")
    for name, (module, extra) in LIBRARIES.items():
        assert module in reasons[name][1]
        assert f"pip install 'rexport[{extra}]'" in reasons[name][1]


LIBRARIES = {
    "tensorrt": ("tensorrt ", "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx ", "tensorrt-rtx"),
    "onnxruntime-tensorrt": ("onnxruntime ", "gpu"),
    "onnxruntime": ("onnxruntime ", "cpu"),
    "onnxruntime-rtx": ("onnxruntime ", "cpu"),
    "openvino": ("openvino ", "openvino"),
    "pytorch": ("torch ", "export"),
    "inductor": ("torch ", "export"),
}
"""Each backend's library, and the extra that installs it."""


def test_without_any_library_opening_is_a_backend_error(onnx_artifact: Artifact, pt2_artifact: Artifact) -> None:
    code = (
        UNIMPORTABLE
        + """
for path, backend in ((sys.argv[1], None), (sys.argv[1], "openvino"), (sys.argv[2], None), (sys.argv[2], "inductor")):
    try:
        runtimes.open(path, backend)
    except runtimes.RexportError as error:
        print(type(error).__name__, error.code, error)
"""
    )
    lines = fresh(code, onnx_artifact.path, pt2_artifact.path).splitlines()
    assert len(lines) == 4
    codes = ("backends-all-missing", "backend-unavailable", "backends-all-missing", "backend-unavailable")
    extras = ("cpu", "openvino", "export", "export")
    for line, code, extra in zip(lines, codes, extras, strict=True):
        assert line.startswith(f"BackendUnavailableError {code} ")
        assert f"rexport[{extra}]" in line


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
    print(type(error).__name__, error.code, error)
"""
    made = pt2_artifact if library == "torch" else onnx_artifact
    out = fresh(code, made.path, backend, tmp_path)
    assert out.startswith(f"BackendUnavailableError library-not-importable {library} ")
    assert "libsomething.so.1" in out
    assert "--force-reinstall 'rexport[" in out


def test_a_script_opens_without_numpys_friends(fake_artifact: FakeFactory) -> None:
    code = "import sys, runtimes; runtimes.open(sys.argv[1]).close()"
    assert imported_libraries(code, fake_artifact().path) == set()
