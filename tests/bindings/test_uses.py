"""Every name, call, struct field and option that the code asks of CUDA, NVML, ONNX Runtime and PyTorch is in the real
libraries: in the oldest release that is allowed, and in newer ones. TensorRT has a folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import cuda.bindings
import onnxruntime
import pytest
import torch

from benchmarks.machine import gpu
from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider
from runtimes.tensors import cuda as cuda_module
from tests.bindings.surface import RECORDED, Surface, recorded
from tests.bindings.uses import Surfaces, Use, problems, uses

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("runtimes", "exporter", "benchmarks", "rexport", "scripts")


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return {library: {one: recorded(library, one) for one in versions} for library, versions in RECORDED.items()}


def sources() -> Iterator[tuple[Path, str]]:
    """The files that name one of the libraries."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if any(word in source for word in ("torch", "onnxruntime", "pynvml", "nvml", "cuda")):
                yield path, source


def test_all_that_the_code_asks_for_is_there(surfaces: Surfaces) -> None:
    found = [f"{path.relative_to(ROOT)}: {line}" for path, source in sources() for line in problems(source, surfaces)]
    assert found == []


def test_the_code_is_understood(surfaces: Surfaces) -> None:
    """The reader would find nothing wrong in what it did not see."""
    files = (
        "runtimes/tensors/cuda.py",
        "runtimes/tensors/cuda_objects.py",
        "benchmarks/machine/gpu.py",
        "runtimes/backends/pytorch/streams.py",
    )
    room = sorted((ROOT / "runtimes/backends/onnxruntime").glob("*.py"))
    read = [path.read_text(encoding="utf-8") for path in (*(ROOT / name for name in files), *room)]
    asked = [use for source in read for use in uses(source, surfaces)]
    assert {
        ("cuda", "cudaDeviceProp.totalGlobalMem"),
        ("cuda", "cudaError_t.cudaSuccess"),
        ("cuda", "cudaMalloc"),
        ("onnxruntime", "IOBinding.bind_ortvalue_input"),
        ("onnxruntime", "InferenceSession.run_with_iobinding"),
        ("onnxruntime", "gpu_graph_id"),
        ("pynvml", "c_nvmlMemory_t.used"),
        ("pynvml", "nvmlDeviceGetName"),
        ("torch", "torch.cuda.graph_pool_handle"),
    } <= {(use.library, use.name) for use in asked}
    assert (1, ()) in [use.call for use in asked if use.name == "cudaMalloc"]


@pytest.mark.parametrize("version", RECORDED["cuda"])
def test_the_errors_of_cuda_are_there(surfaces: Surfaces, version: str) -> None:
    names = cuda_module._LOST | cuda_module._ABSENT
    assert names
    assert [name for name in sorted(names) if f"cudaError_t.{name}" not in surfaces["cuda"][version].names] == []


@pytest.mark.parametrize("version", RECORDED["pynvml"])
def test_the_reasons_of_nvml_are_there(surfaces: Surfaces, version: str) -> None:
    assert set(gpu._REASONS) - surfaces["pynvml"][version].names.keys() == set()


@pytest.mark.parametrize("version", RECORDED["onnxruntime"])
@pytest.mark.parametrize("provider", [CudaProvider, TensorrtProvider])
def test_the_options_of_a_provider_are_there(
    surfaces: Surfaces, version: str, provider: type[CudaProvider | TensorrtProvider]
) -> None:
    options = surfaces["onnxruntime"][version].options
    assert [field.name for field in fields(provider) if field.name not in options] == []


RUNTIME = "from cuda.bindings import runtime\n"
BOUND = "import onnxruntime\ndef f(native: onnxruntime.InferenceSession):\n    "
WRONG = {
    "function": (RUNTIME + "runtime.cudaMallok(8)", "name-missing", "cudaMallok"),
    "text": ('call(runtime, "cudaMallok", 8)', "name-missing", "cudaMallok"),
    "arguments after a text": ('call(runtime, "cudaMalloc", 8, 9)', "call-misfit", "with 2"),
    "too few": (RUNTIME + "runtime.cudaMemcpyAsync(1, 2, 3)", "call-misfit", "with 3"),
    "value": (RUNTIME + "runtime.cudaError_t.cudaSucces", "name-missing", "cudaError_t.cudaSucces"),
    "field": ('p = call(r, "cudaGetDeviceProperties", 0)\np.clockRates', "name-missing", "cudaDeviceProp.clockRates"),
    "field of 12 alone": (
        'p = call(r, "cudaGetDeviceProperties", 0)\np.clockRate',
        "13.0.3: name-missing",
        "cudaDeviceProp.clockRate",
    ),
    "keyword": (RUNTIME + "runtime.cudaMalloc(bytes=8)", "call-misfit", "['bytes']"),
    "owner unknown": ("self._nvml.nvmlDeviceGetNames(handle)", "name-missing", "nvmlDeviceGetNames"),
    "constant": ("nvml.NVML_CLOCK_SMM", "name-missing", "NVML_CLOCK_SMM"),
    "struct": ("nvml.nvmlDeviceGetMemoryInfo(handle).bytes", "name-missing", "c_nvmlMemory_t.bytes"),
    "of a later release": ("nvml.nvmlDeviceGetRepairStatus(handle)", "12.535.77: name-missing", "RepairStatus"),
    "method": (BOUND + "native.run_with_binding(1)", "name-missing", "InferenceSession.run_with_binding"),
    "given": (BOUND + "b = native.io_binding()\n    b.bind_inputs()", "name-missing", "IOBinding.bind_inputs"),
    "keyword of a method": (BOUND + "native.run(None, {}, options=1)", "call-misfit", "['options']"),
    "new method": (BOUND + "native.release_captured_graph(1)", "1.24.1: name-missing", "release_captured_graph"),
    "getattr": ('getattr(nvml, "nvmlDeviceGetRepairStatus")', "12.535.77: name-missing", "RepairStatus"),
    "getattr of nothing": ('getattr(nvml, "nvmlDeviceGetRepairs", None)', "name-missing", "nvmlDeviceGetRepairs"),
    "option": ("o.add_run_config_entry('gpu_graph_di', '1')", "option-missing", "gpu_graph_di"),
    "self": (
        "import onnxruntime\nclass A:\n    def f(self): self.n.runn()\n"
        "    def __init__(self, n: onnxruntime.InferenceSession): self.n = n",
        "name-missing",
        "InferenceSession.runn",
    ),
    "module": ("import torch\ntorch.cuda.is_availabel()", "name-missing", "torch.cuda.is_availabel"),
    "setting": ("import torch\ntorch.backends.cudnn.convs.x = 1", "name-missing", "torch.backends.cudnn.convs"),
    "imported name": ("from torch import nn\nnn.Conv2d(1, 2, 3, biases=True)", "call-misfit", "['biases']"),
    "instance": ("import torch\ng = torch.cuda.CUDAGraph()\ng.rerun()", "name-missing", "torch.cuda.CUDAGraph.rerun"),
    "annotated": ("from torch import Tensor\ndef f(x: Tensor): x.dataptr()", "name-missing", "torch.Tensor.dataptr"),
    "keyword of 2.13": ("import torch\ntorch.compile(f, recompile_limit=3)", "2.11.0: call-misfit", "recompile_limit"),
}
"""Sources with one fault each: what the line says, and what it names."""


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_there_is_found(case: str, surfaces: Surfaces) -> None:
    source, code, value = WRONG[case]
    found = problems(source, surfaces)
    assert any(code in line and value in line for line in found), found


RIGHT = """
import torch
from cuda.bindings import runtime
from torch import nn
import torch.nn.functional as F

def run(native: onnxruntime.InferenceSession, layer: nn.Module, x: torch.Tensor, *sizes) -> None:
    properties = call(runtime, "device", "cudaGetDeviceProperties", 0)
    print(properties.major, f"cudaError{name}", layer.anything, torch.__file__)
    getattr(nvml, "nvmlDeviceGetName")
    getattr(nvml, "nvmlDeviceGetRepairStatus", None)
    hasattr(nvml, "nvmlDeviceGetRepairStatus")
    runtime.cudaMalloc(*sizes)
    F.relu(x, inplace=True).data_ptr()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), pool=None, stream=None):
        torch.ops.aten.relu.default(x)
"""


def test_what_is_right_passes(surfaces: Surfaces) -> None:
    assert problems(RIGHT, surfaces) == []
    assert problems("import torch\ntorch.cuda.future()", surfaces, {"torch.cuda.future": {"3.0"}}) == []


def test_surfaces_tell_releases_apart(surfaces: Surfaces) -> None:
    """Facts of the releases' own notes: CUDA 13 removed fields, NVML and ONNX Runtime gained functions."""
    old, new = (surfaces["cuda"][version].names for version in ("12.8.0", "13.0.3"))
    assert "cudaDeviceProp.clockRate" in old
    assert "cudaDeviceProp.clockRate" not in new
    for library in ("pynvml", "onnxruntime", "torch"):
        first, last = (set(surfaces[library][version].names) for version in RECORDED[library])
        assert last - first
    assert "trt_profile_min_shapes" in surfaces["onnxruntime"]["1.24.1"].options


@pytest.mark.parametrize(
    ("library", "installed"), [("torch", torch), ("onnxruntime", onnxruntime), ("cuda", cuda.bindings)]
)
def test_the_surfaces_are_of_the_real_libraries(surfaces: Surfaces, library: str, installed: object) -> None:
    """What is recorded of the newest release is in the installed one, which may be newer yet."""
    surface = surfaces[library][RECORDED[library][-1]]
    module = cuda.bindings.runtime if library == "cuda" else installed
    names = [name.removeprefix("torch.") for name in surface.names if name.count(".") == (library == "torch")]
    assert len(names) >= 60
    lacking = [name for name in names if not hasattr(module, name)]
    assert len(lacking) < len(names) / 10, lacking  # types of annotations, which only checkers import


def test_a_surface_is_read_and_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surface = Surface("cuda", "1", {"a.B": [], "a.f": ["(x)"]}, ("o",))
    monkeypatch.setattr("tests.bindings.surface.FOLDER", tmp_path)
    (tmp_path / "cuda-1.json").write_text(surface.text(), encoding="utf-8")
    assert recorded("cuda", "1") == surface
    assert surface.owners == {"a"}


def test_a_use_is_counted_once(surfaces: Surfaces) -> None:
    (use,) = dict.fromkeys(uses("runtime.cudaMallok", surfaces))
    assert use == Use(1, "cuda", "cudaMallok")
