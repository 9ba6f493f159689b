"""Every name and call that the source makes of TensorRT is in the real bindings of 10.16 and 11.4, and of TensorRT-RTX.

The first two are recorded surfaces (``tests.bindings.tensorrt.surface``), the last is read from the installed library.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import re
import shutil
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import tensorrt_rtx

from tests.bindings.tensorrt import surface as surfaces_program
from tests.bindings.tensorrt.surface import RECORDED, Parameters, Surface, dumped, read, recorded, write_stubs
from tests.bindings.tensorrt.uses import known_in, names_imported, names_in, problems, uses
from tests.runtimes.backends.tensorrt import double

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(
    [
        *(ROOT / "runtimes" / "backends" / "tensorrt").glob("*.py"),
        ROOT / "exporter" / "targets" / "tensorrt_engine.py",
    ]
)

ONLY = {
    "ComputeCapability": {"rtx"},
    "DynamicShapesKernelSpecializationStrategy": {"rtx"},
    "EAGER": {"rtx"},
    "REQUIRE_USER_ALLOCATION": {"rtx"},
    "create_runtime_cache": {"rtx"},
    "dynamic_shapes_kernel_specialization_strategy": {"rtx"},
    "num_compute_capabilities": {"rtx"},
    "set_compute_capability": {"rtx"},
    "set_runtime_cache": {"rtx"},
}
"""What the source asks for where its library has it, and the releases that do."""


@pytest.fixture(scope="module")
def surfaces() -> dict[str, Surface]:
    return {version: recorded(version) for version in RECORDED} | {"rtx": read(rtx())}


def rtx() -> ModuleType:
    module: ModuleType = tensorrt_rtx
    return module


@pytest.fixture(scope="module")
def own() -> set[str]:
    """What the program itself calls things."""
    return known_in(path for floor in ("runtimes", "exporter") for path in (ROOT / floor).rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.exists()], ids=lambda path: path.stem)
def test_all_that_the_source_asks_for_is_there(path: Path, surfaces: dict[str, Surface], own: set[str]) -> None:
    source = path.read_text(encoding="utf-8")
    assert problems(source, surfaces, ONLY, own | names_imported(source)) == []


def test_the_source_is_understood(surfaces: dict[str, Surface]) -> None:
    """The readers of the source would find nothing wrong in what they did not see."""
    found = [use for path in SOURCES if path.exists() for use in uses(path.read_text(encoding="utf-8"), surfaces)]
    asked = {(use.owner, use.name) for use in found if use.owner is not None}
    assert {
        ("the library", "Runtime"),
        ("Runtime", "deserialize_cuda_engine"),
        ("Refitter", "refit_cuda_engine"),
        ("OnnxParserRefitter", "refit_from_file"),
        ("class LayerInformationFormat", "JSON"),
        ("class TensorIOMode", "INPUT"),
        ("the library", "OnnxParser"),
        ("OnnxParser", "parse_from_file"),
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_flag"),
        ("class BuilderFlag", "TF32"),
    } <= asked


@pytest.mark.parametrize("name", sorted(ONLY))
def test_what_one_release_alone_has_is_asked_for_and_there_alone(name: str, surfaces: dict[str, Surface]) -> None:
    has = {release for release, surface in surfaces.items() if name in surface.owners or name in surface.classes}
    assert has == ONLY[name]
    assert any(name in path.read_text(encoding="utf-8") for path in SOURCES if path.exists())


WRONG = {
    "class": ("trt.Bilder(log)", "name-missing", "Bilder"),
    "value": ("trt.BuilderFlag.FP16", "member-missing", "BuilderFlag", "FP16"),  # in 10.16, and gone from 11
    "getattr": ("getattr(trt.BuilderFlag, 'FP16')", "member-missing", "BuilderFlag", "FP16"),
    "attribute": ("made.device_memory_size", "attribute-missing", "device_memory_size"),
    "known name": (
        "def f(engine: Any) -> None:\n    engine.device_memory_size",
        "member-missing",
        "ICudaEngine",
        "device_memory_size",
    ),
    "misspelt": ("context.execute_async_v33(stream)", "attribute-unknown", "execute_async_v33"),
    "one too many": ("context.execute_async_v3(stream, 1)", "call-misfit", "execute_async_v3", "with 2"),
    "one too few": ("context.set_tensor_address(name)", "call-misfit", "set_tensor_address", "with 1"),
    "keyword": ("context.set_input_shape(name, dims=shape)", "call-misfit", "set_input_shape", "1 and ['dims']"),
    "result": (
        "builder = trt.Builder(log)\nbuilder.create_network(flags=0).add_inputt()",
        "member-missing",
        "INetworkDefinition",
        "add_inputt",
    ),
    "constructor": ("trt.Builder()", "call-misfit", "Builder", "with 0"),
    "library": (
        "def f(library: ModuleType) -> None:\n    library.OnnxParser(net).parse(b'')",
        "call-misfit",
        "OnnxParser",
        "with 1",
    ),
    "annotated": (
        "def f(engine: trt.ICudaEngine) -> None:\n    engine.num_bindings",
        "member-missing",
        "ICudaEngine",
        "num_bindings",
    ),
    "self": (
        "class A:\n    def f(self): self.x.serialise()\n    def __init__(self): self.x = trt.Runtime(log)",
        "member-missing",
        "Runtime",
        "serialise",
    ),
    "with": ("with trt.Runtime(log) as runtime:\n    runtime.max_thread", "member-missing", "Runtime", "max_thread"),
    "flavor": ("flavor.library().Logger.Severety", "member-missing", "Logger", "Severety"),
    "inner class": ("flavor.library().ILogger.Severity.WORSE", "member-missing", "ILogger.Severity", "WORSE"),
    "override": (
        "class T(trt.IProfiler):\n    def report_layer_times(self, layer_name, ms): ...",
        "member-missing",
        "IProfiler",
        "report_layer_times",
    ),
    "overriding parameters": (
        "class T(trt.IProfiler):\n    def report_layer_time(self, ms): ...",
        "call-misfit",
        "report_layer_time",
        "with 1",
    ),
    "read-only": (
        "engine: trt.ICudaEngine = make()\nengine.num_layers = 3",
        "member-read-only",
        "ICudaEngine.num_layers",
    ),
}
"""Sources with one fault each, its code and what the line names."""


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_there_is_found(case: str, surfaces: dict[str, Surface]) -> None:
    source, code, *values = WRONG[case]
    found = problems(source, surfaces, ONLY, set())
    assert any(f": {code}: " in line and all(value in line for value in values) for line in found), found


def test_what_is_right_passes(surfaces: dict[str, Surface]) -> None:
    source = """
class Times(trt.IProfiler):
    def __init__(self):
        trt.IProfiler.__init__(self)

    def report_layer_time(self, layer_name, ms): ...

def run(library: ModuleType, plan):
    runtime = library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.profiler = Times()
    context.set_input_shape("input", (1, 3, 8, 8))
    context.execute_async_v3(stream_handle=0)
    return engine.get_tensor_mode("input") == library.TensorIOMode.INPUT, getattr(library, "ComputeCapability", None)
"""
    assert problems(source, surfaces, ONLY, set()) == []


def test_recorded_surfaces_are_of_the_real_bindings() -> None:
    """TensorRT 11 lost what only TensorRT 10 has, as NVIDIA's own list of the changes says."""
    ten, eleven = (recorded(version) for version in RECORDED)
    gone = set(ten.classes["BuilderFlag"]) - set(eleven.classes["BuilderFlag"])
    assert gone >= {"FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}
    assert "IInt8Calibrator" in ten.classes
    assert "IInt8Calibrator" not in eleven.classes
    for found in (ten, eleven):
        assert len(found.classes) > 150
        (run,) = found.classes["IExecutionContext"]["execute_async_v3"]
        assert Parameters.of(run).names == ("stream_handle",)
        for members in found.classes.values():
            for signatures in members.values():
                for text in signatures:
                    assert text.startswith(("property", "value")) or re.match(r"\w*\(.*\)( -> .+)?$", text), text


def test_a_surface_is_read_and_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(rtx())
    assert found.version == vars(rtx())["__version__"]
    (log,) = found.classes["ILogger"]["log"]
    assert Parameters.of(log).names == ("severity", "msg")
    assert found.classes["ILogger.Severity"]["ERROR"] == ["value"]
    assert found.classes["IBuilderConfig"]["profiling_verbosity"] == ["property = ProfilingVerbosity"]
    assert found.classes["ICudaEngine"]["num_layers"] == ["property -> int"]
    monkeypatch.setattr(surfaces_program, "FOLDER", tmp_path)
    (tmp_path / f"surface-{found.version}.json").write_text(dumped(found), encoding="utf-8")
    assert recorded(found.version) == found


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_stub_libraries_hold_what_the_bindings_ask_for(tmp_path: Path) -> None:
    write_stubs(tmp_path, 11)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"lib{name}.so.11" for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser")
    ]
    library = ctypes.CDLL(str(tmp_path / "libnvinfer.so.11"))
    assert library.createInferBuilder_INTERNAL() == 0


DEFAULT_LAST = "f(self: X, a: int, b: int = 3) -> Y"
DEFAULT_FIRST = "f(self: X, a: W = None, b: int) -> Y"
UNNAMED = "(arg0: X) -> int"
BRACKETED = "f(a: list[Dims], b: nvinfer1.Thing = ...) -> list[int]"


@pytest.mark.parametrize(
    ("signature", "call", "fits"),
    [
        (DEFAULT_LAST, (1, ()), True),
        (DEFAULT_LAST, (1, ("b",)), True),
        (DEFAULT_LAST, (0, ("b",)), False),
        (DEFAULT_LAST, (2, ("b",)), False),
        (DEFAULT_LAST, (3, ()), False),
        ("f(*args, **kwargs)", (9, ("x",)), True),
        (DEFAULT_FIRST, (0, ("b",)), True),
        (DEFAULT_FIRST, (1, ()), False),
        (UNNAMED, (1, ()), True),
        (BRACKETED, (1, ()), True),
    ],
)
def test_calls_are_held_against_signatures(signature: str, call: tuple[int, tuple[str, ...]], fits: bool) -> None:
    assert Parameters.of(signature).takes(*call) == fits


def doubles() -> dict[str, type]:
    """The classes of the double that stand for the library's, by name."""
    found = {name: kind for name, kind in vars(double).items() if isinstance(kind, type)}
    return {
        name: kind for name, kind in found.items() if hasattr(tensorrt_rtx, name) and kind.__module__ == double.__name__
    }


@pytest.mark.parametrize("name", sorted(doubles()))
def test_a_double_has_no_name_that_the_bindings_lack(name: str, surfaces: dict[str, Surface]) -> None:
    kind = doubles()[name]
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    public = {found for found in names_in(ast.unparse(node)) - {name} if not found.startswith("_")}
    held = {found for found in public if found in vars(kind) or f"self.{found} " in ast.unparse(node)}
    assert held
    for release, each in surfaces.items():
        lacking = {found for found in held - set(each.classes[name]) if release in ONLY_RTX_RUNS.get(found, surfaces)}
        assert lacking == set(), release


ONLY_RTX_RUNS = {
    "dynamic_shapes_kernel_specialization_strategy": {"rtx"},
    "cuda_graph_strategy": {"rtx"},
    "create_runtime_cache": {"rtx"},
    "get_runtime_cache": {"rtx"},
    "set_runtime_cache": {"rtx"},
}
"""What the double's runtime configuration has of TensorRT-RTX's alone."""


@pytest.mark.parametrize("name", sorted(doubles()))
def test_a_double_is_called_as_the_bindings_are(name: str, surfaces: dict[str, Surface]) -> None:
    for method, function in vars(doubles()[name]).items():
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        (_, *parameters) = inspect.signature(function).parameters.values()
        for release, each in surfaces.items():
            if release not in ONLY_RTX_RUNS.get(method, surfaces):
                continue
            calls = [Parameters.of(text) for text in each.classes[name][method]]
            plain = tuple(parameter.name for parameter in parameters)
            assert any(call.anything or call.names[: len(plain)] == plain for call in calls), (release, method, plain)
