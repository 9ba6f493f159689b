"""Where an engine departs from its graph. ONNX Runtime stands for the engine, with a layer that is computed wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtimes
from exporter.data.noise import noise
from exporter.document.blocks import Table
from exporter.explain import engine_source, explanation
from exporter.explain.engine_deviation import EngineDeviation, OpenEngine, bisect, block_values, measure_deviation
from exporter.explain.explanation import Explanation, ExplanationRequest
from exporter.explain.profile_summary import Execution, execution
from exporter.explain.view import deviation_verdict, explanation_document
from exporter.precision.graph_probes import mark_values, output_name
from exporter.precision.spec import PrecisionSpec
from exporter.targets import tensorrt_engine
from exporter.targets.tensorrt_engine import EngineRequest
from runtimes import Artifact, Description, Runtime, TensorSpec
from runtimes.artifacts.artifact import manifest_path
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.errors import CompatibilityError, IntegrityError, ModelMismatchError
from runtimes.protocol import Layer
from tests.documents import lines
from tests.exporter.small import BASIC, SILENT, export
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.networks import NETWORK, Network

IMAGES = [noise((2, 3, *BASIC.size), 1)]
BLOCKS = ("stem", "layer1.0", "layer2.0", "layer3.0", "head")
ABOUT = Description("tensorrt-rtx", "1.7", "cuda", "a GPU", "float16", 1)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(BASIC, tmp_path_factory.mktemp("half"), precision_spec=PrecisionSpec("fp16"))


@pytest.fixture(scope="module")
def engine(half: Artifact) -> Artifact:
    """A real engine of TensorRT-RTX, which only a GPU could run."""
    return tensorrt_engine.build_artifact(half.path, EngineRequest("rtx"), SILENT)


class Engines:
    """Builds 'engines' that ONNX Runtime runs. The value of a broken layer is too large by a factor.

    With ``hides``, the layer is broken only while at most that many values are marked: a wrong fusion that more marks
    end.
    """

    def __init__(self, folder: Path, broken: str = "", factor: float = 1.5, hides: int | None = None) -> None:
        self.folder, self.broken, self.factor, self.hides = folder, broken, factor, hides
        self.marks: list[int] = []
        self.runtimes: list[Runtime] = []

    def __call__(self, graph: onnx.ModelProto) -> Runtime:
        marks = len(graph.graph.output) - 1
        self.marks.append(marks)
        if self.broken and (self.hides is None or marks <= self.hides):
            self._break(graph)
        path = self.folder / f"{len(self.marks)}.onnx"
        path.write_bytes(graph.SerializeToString())
        self.runtimes.append(runtimes.open(path, "onnxruntime"))
        return self.runtimes[-1]

    def _break(self, graph: onnx.ModelProto) -> None:
        (node,) = (node for node in graph.graph.node if node.name == self.broken)
        value, node.output[0] = node.output[0], f"{node.output[0]}/right"
        factor = onnx.numpy_helper.from_array(np.array(self.factor, np.float16), "factor")
        graph.graph.initializer.append(factor)
        wrong = onnx.helper.make_node("Mul", [node.output[0], "factor"], [value], "wrong")
        graph.graph.node.insert(list(graph.graph.node).index(node) + 1, wrong)


def graph_of(artifact: Artifact) -> onnx.ModelProto:
    return onnx.load(artifact.path)


def measure(artifact: Artifact, engines: OpenEngine) -> EngineDeviation:
    return measure_deviation(graph_of(artifact), IMAGES, engine_source.limit_of("fp16"), engines)


def test_an_engine_that_computes_the_graph_has_no_first_block(half: Artifact, tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    found = measure(half, engines)
    assert [block.name for block in found.blocks] == list(BLOCKS)
    assert (found.first, found.bisected, found.engines) == (None, False, 2)
    assert engines.marks == [0, len(BLOCKS)]
    assert all(block.deviation is not None and block.deviation < found.limit for block in found.blocks)


def test_a_broken_layer_is_found_where_it_is_marked(half: Artifact, tmp_path: Path) -> None:
    engines = Engines(tmp_path, "layer2.0.conv1/Conv")
    found = measure(half, engines)
    assert (found.first, found.bisected, found.engines) == ("layer2.0", False, 2)
    assert found.output is not None
    assert found.output > found.limit


@pytest.mark.parametrize("broken", ["conv1/Conv", "layer1.0.conv2/Conv", "layer3.0.conv1/Conv", "fc/Gemm"])
def test_bisection_finds_what_marking_all_hides(half: Artifact, tmp_path: Path, broken: str) -> None:
    engines = Engines(tmp_path, broken, hides=1)
    found = measure(half, engines)
    block = {"conv1/Conv": "stem", "fc/Gemm": "head"}.get(broken, broken[:8])
    assert (found.first, found.bisected) == (block, True)
    assert found.engines <= 2 + 1 + 3
    assert set(engines.marks[2:]) == {1}


def test_a_deviation_that_no_mark_shows_has_no_block(half: Artifact, tmp_path: Path) -> None:
    found = measure(half, Engines(tmp_path, "layer2.0.conv1/Conv", hides=0))
    assert (found.first, found.bisected, found.engines) == (None, True, 3)


def test_values_that_are_not_finite_deviate(half: Artifact, tmp_path: Path) -> None:
    found = measure(half, Engines(tmp_path, "layer1.0.conv1/Conv", factor=np.inf))
    assert found.first == "layer1.0"
    assert found.output is None


def test_each_engine_is_closed(half: Artifact, tmp_path: Path) -> None:
    engines = Engines(tmp_path, "layer1.0.conv2/Conv", hides=1)
    measure(half, engines)
    for runtime in engines.runtimes:
        with pytest.raises(Exception, match="closed"):
            runtime.infer({runtime.inputs[0].name: IMAGES[0]})


@pytest.mark.parametrize("first", range(6))
def test_bisection_asks_for_the_logarithm_of_the_names(first: int) -> None:
    names, asked = [f"{number}" for number in range(6)], []

    def deviates(name: str) -> bool:
        asked.append(name)
        return int(name) >= first

    assert bisect(names, deviates) == f"{first}"
    assert len(asked) <= 4


def test_nothing_is_found_where_nothing_deviates() -> None:
    assert bisect(["a", "b"], lambda _: False) is None
    assert bisect([], lambda _: True) is None


def test_a_graph_without_layers_is_refused() -> None:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    with refuses(ModelMismatchError, "graph-without-layers"):
        block_values(onnx.helper.make_model(graph))


def test_tensorrt_rtx_builds_a_graph_with_marks(half: Artifact, tmp_path: Path) -> None:
    """Each mark shows a float16 value as float32."""
    values = block_values(graph_of(half)).values()
    path = tmp_path / "marked.onnx"
    path.write_bytes(mark_values(graph_of(half), list(values)).SerializeToString())
    built = build(path, Settings(), FLAVORS["rtx"])
    assert {spec.name for spec in built.outputs} == {"logits", *map(output_name, values)}
    assert {spec.dtype for spec in built.outputs} == {"float32"}


def test_engines_of_marked_graphs_are_built_and_opened(half: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX builds, and a double runs the engines. It shows no mark, which the check of the outputs finds."""
    network = Network((TensorSpec("input", "float32", ("batch", 3, 16, 16)),), NETWORK.outputs, NETWORK.profiles)
    recorder = double.installed(monkeypatch, "rtx", network)
    recorder.compute_capability = (8, 9)
    with engine_source.engine_opener(half, FLAVORS["rtx"], 2, 0) as open_engine:
        with open_engine(graph_of(half)) as runtime:
            assert runtime.description.backend == FLAVORS["rtx"].backend
        with refuses(IntegrityError, "manifest-specs-mismatch"):
            open_engine(mark_values(graph_of(half), ["layer1.0/Add"]))
    assert recorder.faults == []


def test_an_engines_errors_are_those_of_its_onnx_file(engine: Artifact) -> None:
    """Without a GPU, the library can be found missing, which is no error of the question."""
    found = explanation.explain(ExplanationRequest(engine.path, find_deviation=True), SILENT)
    assert found.no_execution is not None
    assert found.errors is not None
    assert 0 < (found.errors.written or 0) < 5e-3
    assert found.no_deviation is not None
    assert found.no_deviation.code == "engine-not-run"


def spoil_nothing(engine: Artifact, folder: Path) -> Path:
    for path in (engine.path, manifest_path(engine.path)):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / engine.path.name


def test_an_engine_without_its_onnx_file_hides_its_layers(engine: Artifact, half: Artifact, tmp_path: Path) -> None:
    copied = Artifact.read(spoil_nothing(engine, tmp_path))
    with refuses(CompatibilityError, "engine-source-missing"):
        engine_source.onnx_of(copied)
    other = export(BASIC, tmp_path)
    assert other.path.name == half.path.name
    with refuses(CompatibilityError, "engine-source-changed"):
        engine_source.onnx_of(copied)


def test_only_an_engine_can_depart(half: Artifact) -> None:
    found = explanation.explain(ExplanationRequest(half.path, find_deviation=True), SILENT)
    assert found.no_deviation is not None
    assert found.no_deviation.code == "no-engine-ran"


STEPS = (
    Layer("conv1/Conv", ("conv1/Conv", "relu/Relu"), "convolution", "float16", True, 1e-3, "sm89_fprop_f16"),
    Layer("layer1.0.conv1/Conv", ("layer1.0.conv1/Conv",), "convolution", "float8", True, 2e-3, "sm89_fprop_e4m3"),
    Layer("layer1.0/Add", ("layer1.0/Add",), "PWN", "float16", False, 5e-4, "fused_add"),
)


def run_on_a_gpu(monkeypatch: pytest.MonkeyPatch, engines: OpenEngine) -> None:
    """Let an explanation see a run of an engine, and build engines of the double."""
    ran = execution(STEPS, "fp16", ABOUT)

    def executed(*_: object) -> tuple[Execution, None]:
        return ran, None

    @contextmanager
    def opened(*_: object) -> Iterator[OpenEngine]:
        yield engines

    monkeypatch.setattr(explanation, "_execution", executed)
    monkeypatch.setattr(engine_source, "engine_opener", opened)


def test_an_explanation_names_the_block(half: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_on_a_gpu(monkeypatch, Engines(tmp_path, "layer2.0.conv1/Conv", hides=1))
    found = explanation.explain(ExplanationRequest(half.path, find_deviation=True), SILENT)
    assert found.deviation is not None
    assert (found.deviation.first, found.deviation.bisected) == ("layer2.0", True)
    (verdict,) = deviation_verdict(found)
    assert "layer2.0" in verdict
    assert explanation.as_json(found).count('"deviation"') > 1


def tables(found: Explanation, names: Callable[[Table], bool]) -> Sequence[Table]:
    return [block for block in explanation_document(found, "layer").blocks if isinstance(block, Table) and names(block)]


def test_kernels_and_fused_nodes_stand_in_a_table(
    half: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on_a_gpu(monkeypatch, Engines(tmp_path))
    found = explanation.explain(ExplanationRequest(half.path, find_deviation=True), SILENT)
    (kernels,) = tables(found, lambda table: table.columns[-1].heading == "kernel")
    first = lines(kernels)[0]
    assert (first["step"], first["kernel"]) == ("conv1/Conv + relu/Relu", "sm89_fprop_f16")
    assert [line["executed as"] for line in lines(kernels)] == ["float16", "float8", "float16"]
    (deviation,) = tables(found, lambda table: table.columns[-1].heading == "deviation %")
    assert [line["block"] for line in lines(deviation)] == list(BLOCKS)
    assert not any("kernel" in str(block) for block in explanation_document(found, "block").blocks)
