"""What holds for every backend. A new one is tested by existing: the table is ``runtimes.available_backends()``."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, Backend, Runtime
from runtimes.artifacts.formats import FORMATS
from runtimes.backends import registry
from runtimes.errors import BackendUnavailableError, InputError, IntegrityError, RexportError, UsageError
from runtimes.processors import usable_processors
from runtimes.protocol import Array, TensorSpec
from tests.refusals import refuses
from tests.samples import publish_script

REPO = Path(__file__).resolve().parents[3]
ALL = registry.all_backends()
PRESENT = [backend for backend in ALL if "cpu" in backend.devices and backend.missing() is None]
"""Those that run on the processor; the others need a GPU, and their tests are marked so."""

ONE_OF = f"one of {', '.join(row.name for row in runtimes.available_backends())}"

needs_two = pytest.mark.skipif(usable_processors() < 2, reason="needs two processors")


def named(backend: Backend) -> str:
    return backend.name


@pytest.fixture(scope="module")
def samples(
    onnx_artifact: Artifact, pt2_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    """An artifact of each format."""
    fake = publish_script(tmp_path_factory.mktemp("fake") / "scripted.fake")
    return {"onnx": onnx_artifact, "pt2": pt2_artifact, "fake": fake}


@pytest.fixture(scope="module", params=PRESENT, ids=named)
def runtime(request: pytest.FixtureRequest, samples: dict[str, Artifact]) -> Iterator[Runtime]:
    """An artifact opened by each backend in turn, shared by the tests: compiling takes seconds."""
    backend: Backend = request.param
    with runtimes.open(samples[backend.formats[0]].path, backend.name, threads=1) as opened:
        yield opened


def images(runtime: Runtime, batch: int, seed: int = 0) -> dict[str, Array]:
    (spec,) = runtime.inputs
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    return {spec.name: np.random.default_rng(seed).standard_normal((batch, *sizes), np.float32)}


def logits(runtime: Runtime, feeds: dict[str, Array]) -> Array:
    return runtime.infer(feeds)["logits"]


@pytest.mark.parametrize("backend", ALL, ids=named)
def test_a_row_is_whole(backend: Backend) -> None:
    assert backend.formats
    assert set(backend.formats) <= set(FORMATS)
    assert backend.devices
    assert set(backend.devices) <= {"cpu", "cuda"}
    assert set(backend.prepares_batches) <= set(backend.devices)
    assert backend.name == backend.name.lower()
    assert [row.name for row in ALL].count(backend.name) == 1
    missing = backend.missing()
    assert missing is None or "install" in missing.sentence or "GPU" in missing.sentence


def test_one_backend_is_the_reference_and_one_is_for_tests() -> None:
    assert [row.name for row in ALL if row.reference] == [registry.reference_backend().name] == ["pytorch"]
    assert {row.name for row in ALL} - {row.name for row in runtimes.available_backends()} == {"fake"}


def test_names_and_aliases_are_unique() -> None:
    names = [name for row in ALL for name in (row.name, *row.aliases)]
    assert len(set(names)) == len(names)
    assert [name for name in names if name != name.lower()] == []


@pytest.mark.parametrize(
    ("typed", "name"),
    [("ort", "onnxruntime"), ("OV", "openvino"), ("trt", "tensorrt"), ("ONNXRuntime", "onnxruntime"), ("fake", "fake")],
)
def test_a_backend_is_found_by_alias_in_any_case(typed: str, name: str) -> None:
    assert registry.find_backend(typed).name == name


def test_an_alias_opens_its_backend(samples: dict[str, Artifact]) -> None:
    with runtimes.open(samples["onnx"].path, "ORT") as opened:
        assert opened.description.backend == "onnxruntime"


def test_the_vectors_are_answered(runtime: Runtime) -> None:
    vectors = runtime.artifact.vectors()
    result = logits(runtime, {"input": vectors.inputs})
    np.testing.assert_allclose(result, vectors.logits, rtol=0, atol=1e-5 * np.abs(vectors.logits).max())


def test_it_says_what_it_is(runtime: Runtime) -> None:
    about = runtime.description
    assert about.backend in map(named, ALL)
    assert (about.device, about.precision, about.threads) == ("cpu", "float32", 1)
    assert about.version
    assert about.provider
    assert repr(runtime).startswith(f"<Runtime {runtime.artifact.path.name} on {about.backend} ")
    assert runtime.outputs == (TensorSpec("logits", "float32", ("batch", 10)),)


@pytest.mark.parametrize("batch", [0, 1, 2, 5])
def test_any_batch_gives_as_many_rows(runtime: Runtime, batch: int) -> None:
    result = logits(runtime, images(runtime, batch))
    assert result.shape == (batch, 10)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous


def test_an_image_is_answered_alike_in_any_batch(runtime: Runtime) -> None:
    feeds = images(runtime, 5)
    together = logits(runtime, feeds)
    for number in range(5):
        alone = logits(runtime, {"input": feeds["input"][number : number + 1]})[0]
        np.testing.assert_allclose(alone, together[number], rtol=0, atol=1e-5 * np.abs(together).max())


def test_results_are_fresh_and_the_callers(runtime: Runtime) -> None:
    feeds = images(runtime, 2)
    first = logits(runtime, feeds)
    before = first.copy()
    assert first.flags.writeable
    logits(runtime, images(runtime, 2, seed=1))
    np.testing.assert_array_equal(first, before)
    first[:] = np.nan
    np.testing.assert_array_equal(logits(runtime, feeds), before)
    result = runtime.infer(feeds)
    result.clear()
    np.testing.assert_array_equal(logits(runtime, feeds), before)


def test_views_are_answered_as_their_copies(runtime: Runtime) -> None:
    plain = images(runtime, 2)["input"]
    expected = logits(runtime, {"input": plain})
    wide = np.zeros((2, 3, plain.shape[2], 2 * plain.shape[3]), np.float32)
    wide[..., ::2] = plain
    backwards = plain[:, :, ::-1].copy()[:, :, ::-1]
    read_only = plain.copy()
    read_only.flags.writeable = False
    for view in (np.asfortranarray(plain), wide[..., ::2], backwards, read_only):
        before = view.tobytes()
        np.testing.assert_array_equal(logits(runtime, {"input": view}), expected)
        assert view.tobytes() == before
    lists = runtime.infer({"input": plain.tolist()})
    np.testing.assert_array_equal(lists["logits"], expected)


def test_wrong_feeds_are_refused_before_the_library_sees_them(runtime: Runtime) -> None:
    """One of each kind; the whole matrix is in the tests of the validation, which is the same for all backends."""
    plain = images(runtime, 2)["input"]
    cases: tuple[tuple[dict[str, Array], str, object], ...] = (
        ({"input": plain.astype(np.float64)}, "input-dtype-mismatch", "float64"),
        ({"input": plain[0]}, "input-rank-mismatch", plain[0].shape),
        ({"input": plain[..., :-1]}, "input-shape-mismatch", plain[..., :-1].shape),
        ({"x": plain}, "input-names-mismatch", "'x'"),
    )
    for feeds, code, value in cases:
        for act in (runtime.infer, runtime.bind):
            with refuses(InputError, code, value):
                act(feeds)


def test_what_is_bound_runs_and_is_its_own_copy(runtime: Runtime) -> None:
    feeds = images(runtime, 2)
    first, second = runtime.bind(feeds), runtime.bind(images(runtime, 1))
    feeds["input"][:] = np.nan
    for call in (first, second, first, second, runtime.bind(images(runtime, 0))):
        call()


def test_bound_data_does_not_alias_the_callers(samples: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Array] = []
    with runtimes.open(samples["fake"].path) as runtime:
        session = runtime._session
        monkeypatch.setattr(session, "bind", lambda arrays: seen.append(arrays["input"]))
        feeds = images(runtime, 2)
        runtime.bind(feeds)
        assert not np.shares_memory(seen[0], feeds["input"])


def test_what_is_bound_never_gets_into_the_arrays_of_calls(runtime: Runtime) -> None:
    called, bound = images(runtime, 1), images(runtime, 1, seed=1)
    before = called["input"].copy()
    expected = logits(runtime, called)
    for _ in range(3):
        runtime.bind(bound)()
        np.testing.assert_array_equal(called["input"], before)
        np.testing.assert_array_equal(logits(runtime, called), expected)


def test_many_threads_get_their_own_answers(runtime: Runtime) -> None:
    cases = [images(runtime, batch, seed) for seed, batch in enumerate((1, 2, 3, 5, 2, 1, 3, 4))]
    expected = [logits(runtime, feeds) for feeds in cases]
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for turn in range(25):
            which = (number + turn) % len(cases)
            try:
                np.testing.assert_array_equal(logits(runtime, cases[which]), expected[which])
            except (AssertionError, RexportError) as error:
                wrong.append(f"thread {number}, turn {turn}: {error}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


@pytest.mark.parametrize("backend", PRESENT, ids=named)
def test_wrong_requests_are_refused_before_anything_opens(backend: Backend, samples: dict[str, Artifact]) -> None:
    path = samples[backend.formats[0]].path
    for threads in (0, -1, "2", 1.0):
        with refuses(UsageError, "threads-out-of-range", repr(threads)):
            runtimes.open(path, backend.name, threads=threads)  # type: ignore[arg-type]
    with refuses(UsageError, "device-unknown", "'tpu'"):
        runtimes.open(path, backend.name, device="tpu")
    with refuses(UsageError, "backend-unknown", "'tensorflow'", "one of", "onnxruntime"):
        runtimes.open(path, "tensorflow")
    other = next(artifact for name, artifact in samples.items() if name not in backend.formats)
    with refuses(UsageError, "backend-format-mismatch", backend.name, backend.formats[0], other.format.name):
        runtimes.open(other.path, backend.name)


@pytest.mark.parametrize("backend", [row for row in PRESENT if "cuda" in row.devices], ids=named)
def test_a_missing_device_is_never_the_processor_instead(backend: Backend, samples: dict[str, Artifact]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(BackendUnavailableError, match="CUDA") as caught:
        runtimes.open(samples[backend.formats[0]].path, backend.name, device="cuda")
    assert caught.value.exit_code == 5
    assert caught.value.hint


@pytest.mark.parametrize("backend", [row for row in PRESENT if "cuda" not in row.devices], ids=named)
def test_a_device_that_a_backend_never_has_is_a_wrong_request(backend: Backend, samples: dict[str, Artifact]) -> None:
    with refuses(UsageError, "backend-lacks-device", "'cuda'", backend.name):
        runtimes.open(samples[backend.formats[0]].path, backend.name, device="cuda")


@pytest.mark.parametrize("backend", PRESENT, ids=named)
def test_by_default_it_takes_the_processors_that_it_may(backend: Backend, samples: dict[str, Artifact]) -> None:
    with runtimes.open(samples[backend.formats[0]].path, backend.name) as opened:
        assert opened.description.threads == usable_processors()


def test_the_default_backend_is_the_most_preferred(samples: dict[str, Artifact]) -> None:
    for format, artifact in samples.items():
        with runtimes.open(artifact.path) as opened:
            assert opened.description.backend == next(row.name for row in PRESENT if format in row.formats)


@needs_two
def test_onnxruntime_starts_the_threads_that_were_asked_for(samples: dict[str, Artifact]) -> None:
    code = """
import os, sys, runtimes
def threads(): return len(os.listdir("/proc/self/task"))
with runtimes.open(sys.argv[1], "onnxruntime", threads=1): before = threads()
with runtimes.open(sys.argv[1], "onnxruntime", threads=2): print(threads() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(samples["onnx"].path)], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"  # and the caller's own


@needs_two
def test_pytorch_computes_with_the_threads_that_were_asked_for(samples: dict[str, Artifact]) -> None:
    import torch

    path, seen = samples["pt2"].path, list[int]()

    def ask(opened: Runtime) -> None:
        opened.infer(images(opened, 1))
        seen.append(torch.get_num_threads())

    with runtimes.open(path, "pytorch", threads=1) as one, runtimes.open(path, "pytorch", threads=2) as two:
        for opened in (one, two, one):
            thread = threading.Thread(target=ask, args=(opened,))
            thread.start()
            thread.join()
    assert seen == [1, 2, 1]


@pytest.mark.parametrize("backend", PRESENT, ids=lambda backend: backend.name)
def test_more_threads_than_processors_are_refused_by_all(backend: Backend, samples: dict[str, Artifact]) -> None:
    many = usable_processors() + 1
    with refuses(UsageError, "threads-out-of-range", many - 1, many):
        runtimes.open(samples[backend.formats[0]].path, backend.name, threads=many)


def test_a_manifest_that_lies_about_the_model_is_found(samples: dict[str, Artifact]) -> None:
    artifact = samples["onnx"]
    assert artifact.manifest is not None
    (output,) = artifact.manifest.outputs
    lying = replace(artifact.manifest, outputs=(replace(output, shape=("batch", 11)),))
    with refuses(IntegrityError, "manifest-specs-mismatch", lying.outputs[0]):
        runtimes.open_artifact(replace(artifact, manifest=lying))
