"""How the PyTorch backends open a program on CUDA, under the double: what they make of it, and what they say it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cuda.bindings.runtime as real
import numpy as np
import pytest
import torch as torch_library
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import runtimes
from exporter.export_request import ExportRequest
from exporter.precision.spec import PrecisionSpec
from exporter.targets import torch_program
from runtimes import Artifact
from runtimes.backends.pytorch import backend as pytorch
from runtimes.backends.pytorch import cudagraphs_backend, inductor_backend, layout, max_autotune_backend
from runtimes.backends.pytorch.batch_sizes import FIXED_BATCHES
from runtimes.backends.pytorch.cuda_session import CudaTorchSession
from runtimes.backends.pytorch.inductor_backend import CompiledPrograms
from runtimes.devices import DeviceName
from runtimes.errors import BackendUnavailableError, CompatibilityError
from runtimes.protocol import Array, Options, TensorSpec
from tests.exporter.small import BASIC, SILENT
from tests.refusals import refuses
from tests.runtimes.backends.pytorch.double import Recorder, installed
from tests.runtimes.backends.tensorrt.cudadouble import Recorder as CudaRecorder
from tests.runtimes.backends.tensorrt.driverdouble import install

CUDA = Options("cuda", 1)
Make = Callable[..., Artifact]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A small program in a precision, made once."""
    made: dict[tuple[str, bool], Artifact] = {}

    def program(precision: str, raw: bool = False) -> Artifact:
        if (precision, raw) not in made:
            folder = tmp_path_factory.mktemp(precision)
            made[precision, raw] = torch_program.export(
                ExportRequest(BASIC, f"{folder}/", raw=raw), SILENT, PrecisionSpec(precision)
            )
        return made[precision, raw]

    return program


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The double, for which a program is on the device already, and which takes two images for a trial."""
    monkeypatch.setattr(layout, "LARGEST_TRIAL", 2)
    monkeypatch.setattr(pytorch, "move_program", lambda program, _: program)
    return installed(monkeypatch)


def answers(session: CudaTorchSession, artifact: Artifact) -> tuple[Array, Array]:
    """The session's logits for the test vectors, and theirs."""
    vectors = artifact.vectors()
    return session.run({"input": vectors.inputs})["logits"], vectors.logits


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("precision", "arithmetic", "provider", "tolerance"),
    [
        ("fp32", "float32", "eager", 1e-5),
        ("tf32", "tfloat32", "eager", 1e-5),
        ("fp16", "float16", "eager channels-last", 1e-2),
        ("bf16", "bfloat16", "eager channels-last", 8e-2),
    ],
)
@pytest.mark.usefixtures("recorder")
def test_eager_says_what_it_computes_in(
    make: Make, precision: str, arithmetic: str, provider: str, tolerance: float, raw: bool
) -> None:
    artifact = make(precision, raw)
    session = pytorch.BACKEND.open(artifact, CUDA)
    assert isinstance(session, CudaTorchSession)
    about = session.description
    assert (about.precision, about.provider, about.device) == (arithmetic, provider, "cuda")
    given, theirs = answers(session, artifact)
    np.testing.assert_allclose(given, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_on_the_processor_tf32_is_float32(make: Make) -> None:
    with runtimes.open(make("tf32").path, "pytorch") as runtime:
        assert (runtime.description.precision, runtime.description.provider) == ("float32", "eager")


class Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Whether the output of each convolution under it is channels-last."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layouts: list[bool] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if "conv" in str(func):
            self.layouts.append(result.is_contiguous(memory_format=torch_library.channels_last))
        return result


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(("precision", "last"), [("bf16", True), ("fp32", False)])
def test_half_precision_is_channels_last_throughout(make: Make, precision: str, last: bool) -> None:
    artifact = make(precision)
    session = pytorch.BACKEND.open(artifact, CUDA)
    with Convolutions() as seen:
        session.run({"input": artifact.vectors().inputs})
    assert seen.layouts == [last] * 7


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("faster", ["first", "last"])
def test_float32_gets_the_layout_that_is_measured_faster(
    make: Make, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, graphs: bool, faster: str
) -> None:
    """Timed for real, on the processor, but for the clock: the device of the double has none."""
    timed: list[bool] = []

    def time_run(call: Callable[[Tensor], Any], example: Tensor) -> float:
        with Convolutions() as seen, torch_library.inference_mode():
            call(example[:2])
        assert len(set(seen.layouts)) == 1
        timed.append(seen.layouts[0])
        return 1.0 if seen.layouts[0] == (faster == "last") else 1.1

    monkeypatch.setattr(layout, "time_on_device", time_run)
    artifact = make("fp32")
    session = (cudagraphs_backend if graphs else pytorch).BACKEND.open(artifact, CUDA)
    assert isinstance(session, CudaTorchSession)
    assert timed == [False, True]
    about = session.description
    assert about.backend == ("pytorch-cudagraphs" if graphs else "pytorch")
    words = ["eager"] + ["channels-last"] * (faster == "last") + ["CUDA graphs"] * graphs
    assert about.provider == " ".join(words)
    assert [note.code for note in about.notes] == ["layout-measured"]
    with Convolutions() as seen:
        given, theirs = answers(session, artifact)
    assert set(seen.layouts) == {faster == "last"}
    np.testing.assert_allclose(given, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert recorder.events.count("replay") == (1 if graphs else 0)
    assert recorder.faults == []


def test_a_trial_that_lacks_memory_takes_fewer_images(make: Make) -> None:
    program = pytorch.load_program(make("fp32"), DeviceName("cpu"))
    tried: list[int] = []

    def time_run(_: Callable[[Tensor], Any], example: Tensor) -> float:
        tried.append(len(example))
        if len(example) > 5:
            raise torch_library.OutOfMemoryError("CUDA out of memory")
        return 1.0

    chosen = layout.choose_layout(program, torch_library.zeros(20, 3, 32, 32), time_run)
    assert not chosen.channels_last
    assert tried == [20, 10, 5, 5]
    weights = [value for value in program.state_dict.values() if value.dim() == 4]
    assert all(weight.is_contiguous() for weight in weights)
    with pytest.raises(torch_library.OutOfMemoryError):
        layout.choose_layout(
            program, torch_library.zeros(1, 3, 32, 32), lambda call, _: time_run(call, torch_library.ones(9))
        )


@pytest.mark.parametrize(
    ("shape", "batch"),
    [(("n", 3, 224, 224), 27), (("n", 3, 32, 32), 256), ((4, 3, 32, 32), 4), (("n", 3, 4000, 4000), 1)],
)
def test_a_trial_keeps_the_device_busy(shape: tuple[int | str, ...], batch: int) -> None:
    assert layout.trial_batch(TensorSpec("x", "float32", shape)) == batch


def test_graphs_that_are_turned_off_are_not_replaced(make: Make, recorder: Recorder) -> None:
    with refuses(CompatibilityError, "backend-needs-graphs", "pytorch-cudagraphs"):
        cudagraphs_backend.BACKEND.open(make("fp32"), replace(CUDA, cuda_graphs=False))
    assert recorder.events == []


def test_max_autotune_is_compiled_with_its_mode(
    make: Make, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []

    def compiled(module: torch_library.nn.Module, **settings: object) -> torch_library.nn.Module:
        given.append(settings)
        return module

    monkeypatch.setattr(torch_library, "compile", compiled)
    session = max_autotune_backend.BACKEND.open(make("fp32"), CUDA)
    assert isinstance(session, CudaTorchSession)
    answers(session, make("fp32"))
    (settings,) = given
    options = settings["options"]
    assert isinstance(options, dict)
    assert {name for name, value in options.items() if value} == {
        "freezing",
        "max_autotune",
        "coordinate_descent_tuning",
    }
    assert session.description.provider.split() == ["inductor", "max-autotune", "CUDA", "graphs"]
    assert recorder.faults == []


@pytest.mark.usefixtures("recorder")
def test_the_profile_tells_what_convolutions_are_rounded_to(make: Make) -> None:
    assert pytorch.BACKEND.profile is not None
    artifact = make("tf32")
    layers = pytorch.BACKEND.profile(artifact, CUDA, {"input": artifact.vectors().inputs})
    assert {layer.precision for layer in layers if layer.weighted} == {"tfloat32"}
    assert {layer.precision for layer in layers if not layer.weighted} == {"float32"}
    assert all(layer.duration_s for layer in layers)
    on_cpu = pytorch.BACKEND.profile(artifact, Options("cpu", 1), {"input": artifact.vectors().inputs})
    assert {layer.precision for layer in on_cpu} == {"float32"}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_moved_program_names_its_old_device_nowhere(make: Make, precision: str, raw: bool) -> None:
    """To ``meta``, which every PyTorch has; a graph names devices where types are converted."""
    program = pytorch.load_program(make(precision, raw), DeviceName("cpu"))
    named = "device: cpu" in str(program.graph) or "device = cpu" in str(program.graph)
    assert named == (raw or precision == "fp16")
    moved = pytorch.move_program(program, "meta")
    assert "cpu" not in str(moved.graph).replace("_cpu", "")
    assert {value.device.type for value in moved.parameters()} == {"meta"}


def test_a_program_goes_to_its_device_whatever_is_current(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []

    def moved(program: torch_library.export.ExportedProgram, device: str) -> torch_library.export.ExportedProgram:
        asked_for.append(device)
        return program

    monkeypatch.setattr(pytorch, "move_program", moved)
    installed(monkeypatch)
    monkeypatch.setattr(torch_library.cuda, "current_device", lambda: 1)
    artifact = make("fp16")
    for index in (0, 1):
        pytorch.load_program(artifact, DeviceName("cuda", index))
    assert asked_for == ["cuda:0", "cuda:1"]
    with refuses(BackendUnavailableError, "pytorch-lacks-gpu-number", "number 2", "0 to 1"):
        pytorch.load_program(artifact, DeviceName("cuda", 2))


@pytest.mark.parametrize("row", [pytorch.BACKEND, inductor_backend.BACKEND], ids=lambda backend: backend.name)
def test_a_session_is_on_the_gpu_of_its_number(
    make: Make, monkeypatch: pytest.MonkeyPatch, row: runtimes.Backend
) -> None:
    recorder = installed(monkeypatch)
    monkeypatch.setattr(pytorch, "move_program", lambda program, _: program)
    for index in (1, 0):
        session = row.open(make("fp32"), Options("cuda", 1, device_index=index))
        assert session.description.device == ("cuda:1" if index else "cuda")
    assert recorder.devices == [1, 0]


def test_the_limit_is_a_share_of_the_gpus_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    shares: list[tuple[float, int]] = []
    card = SimpleNamespace(total_memory=8 << 30)
    monkeypatch.setattr(torch_library.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(
        torch_library.cuda, "set_per_process_memory_fraction", lambda share, index: shares.append((share, index))
    )
    monkeypatch.setattr(pytorch, "move_program", lambda program, _: program)
    for limit in (None, 2 << 30, 16 << 30):
        pytorch.load_program(make("fp32"), DeviceName("cuda", 1), limit)
    assert shares == [(0.25, 1), (1.0, 1)]


def test_a_gpu_of_another_process_is_no_broken_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    recorder = install(monkeypatch, CudaRecorder(devices=2))
    recorder.compute_mode = real.cudaComputeMode.cudaComputeModeExclusiveProcess

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nhelp")

    monkeypatch.setattr(pytorch, "move_program", refuse)
    with refuses(BackendUnavailableError, "gpu-exclusive", "GPU 1", "exclusive-process"):
        pytorch.load_program(make("fp32"), DeviceName("cuda", 1))


@pytest.mark.parametrize("backend", [pytorch.BACKEND, inductor_backend.BACKEND], ids=lambda backend: backend.name)
def test_without_a_device_nothing_is_loaded(make: Make, backend: runtimes.Backend) -> None:
    if torch_library.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code = "pytorch-without-cuda" if torch_library.version.cuda is None else "pytorch-sees-no-gpu"
    with refuses(BackendUnavailableError, code, torch_library.__version__):
        backend.open(make("fp32"), CUDA)


class Copies:
    """Stands for ``torch.compile``: counts the copies that were compiled, and what each was called with."""

    def __init__(self) -> None:
        self.called: list[tuple[bool, int]] = []
        self.made: list[bool] = []

    def __call__(self, fixed: bool) -> Callable[[Tensor], Tensor]:
        self.made.append(fixed)

        def call(x: Tensor) -> Tensor:
            self.called.append((fixed, len(x)))
            return x

        return call


def test_the_first_batch_sizes_have_code_of_their_own() -> None:
    copies = Copies()
    compiled = CompiledPrograms(copies)
    assert copies.made == []
    sizes = (5, 1, 5, 2, 3, 8, 64)
    for batch in sizes:
        compiled(torch_library.zeros(batch, 1))
    assert len(set(sizes)) == FIXED_BATCHES
    for batch in (7, 1, 256):
        compiled(torch_library.zeros(batch, 1))
    assert copies.made == [True, False]
    assert copies.called == [*((True, batch) for batch in sizes), (False, 7), (True, 1), (False, 256)]
    assert [compiled.is_fixed(batch) for batch in (64, 7, 256)] == [True, False, False]


def test_asking_takes_a_place(recorder: Recorder) -> None:
    compiled = CompiledPrograms(Copies())
    for batch in range(1, FIXED_BATCHES + 1):
        assert compiled.is_fixed(batch)
    assert not compiled.is_fixed(FIXED_BATCHES + 1)
    assert recorder.faults == []


@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_programs_are_recorded_unless_told_not_to(
    make: Make, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    """Not really compiled: the double's recordings see operators, and not what a compiler makes of them."""
    shapes: list[bool] = []

    def uncompiled(
        program: torch_library.export.ExportedProgram, dynamic: bool, mode: str | None
    ) -> torch_library.nn.Module:
        assert mode is None
        shapes.append(dynamic)
        return program.module()

    monkeypatch.setattr(inductor_backend, "compile_program", uncompiled)
    artifact = make("fp32")
    session = inductor_backend.BACKEND.open(artifact, replace(CUDA, cuda_graphs=graphs))
    assert isinstance(session, CudaTorchSession)
    assert session.description.provider == ("inductor CUDA graphs" if graphs else "inductor")
    for _ in range(2):
        given, theirs = answers(session, artifact)
        np.testing.assert_allclose(given, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    assert recorder.events.count("replay") == (2 if graphs else 0)
    for batch in range(1, FIXED_BATCHES + 3):
        session.run({"input": artifact.vectors().inputs[[0] * batch]})
    assert recorder.events.count("record") == (1 + FIXED_BATCHES if graphs else 0)
    (note,) = session.description.notes
    assert note.code == "batch-unprepared"
    assert shapes == [False, True]
    assert recorder.faults == []


@pytest.mark.usefixtures("recorder")
def test_it_really_compiles_for_a_fixed_size(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make("fp32")
    session = inductor_backend.BACKEND.open(artifact, replace(CUDA, cuda_graphs=False))
    monkeypatch.setattr(torch_library.cuda, "is_available", lambda: False)  # else the compiler asks it for more
    vectors = artifact.vectors()
    given = session.run({"input": vectors.inputs})["logits"]
    np.testing.assert_allclose(given, vectors.logits, rtol=0, atol=1e-5 * np.abs(vectors.logits).max())
