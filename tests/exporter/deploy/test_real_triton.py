"""A real Triton serves what ``rexport triton`` writes, and ``rexport verify --url`` finds what is wrong."""

from __future__ import annotations

import json
import random
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import runtimes
from exporter.cli import main
from exporter.deploy.served import ServerConnection
from exporter.deploy.triton_repository import TritonRequest, add_version
from exporter.deploy.triton_settings import TritonSettings
from exporter.deploy.vector_images import png_images
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Artifact, Manifest
from runtimes.artifacts.artifact import Vectors
from runtimes.errors import BackendUnavailableError, CheckFailedError, InputError, ModelMismatchError
from runtimes.images.preprocessing import fit_or_name
from runtimes.network_io import NetworkInput
from scripts.triton_server import TritonServer, triton_server
from tests.conftest import SILENT
from tests.exporter.command_line import Result, here
from tests.exporter.deploy.changes import make_another
from tests.peers import peer
from tests.refusals import error_codes, refuses

pytestmark = pytest.mark.peers

SETTINGS = TritonSettings("python", threads=1, opened_with="onnxruntime")
INT8 = PrecisionSpec("int8", gate_images=100)
MODELS = {
    "fp32": (FP32, {"outputs": ("logits", "features", "cam")}),
    "int8": (INT8, {}),
    "raw": (FP32, {"raw": True}),
    "fixed": (FP32, {"batch": 4}),
}
"""The served models: precision, and further fields of the request."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with all models. Shared: not to be changed."""
    peer("triton")
    folder = tmp_path_factory.mktemp("served")
    for name, (precision, fields) in MODELS.items():
        request = ExportRequest(variant("resnet20"), f"{folder}/{name}.onnx", weights="bundled", **fields)  # type: ignore[arg-type]
        artifact = onnx_file.export(request, SILENT, None, precision)
        add_version(artifact.path, TritonRequest(folder / "repository", SETTINGS), lambda _: None)
    return folder / "repository"


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[TritonServer]:
    """A server of the repository."""
    with triton_server(repository, environment=peer("triton")) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, triton: TritonServer) -> str:
    return str(getattr(triton, request.param))


def model_file(repository: Path, name: str, version: int = 1) -> Path:
    return repository / name / str(version) / "model.onnx"


def verify(*arguments: str | Path) -> Result:
    return here(main, "verify", *arguments)


@pytest.mark.parametrize("name", MODELS)
def test_served_logits_are_bit_equal(repository: Path, url: str, name: str) -> None:
    artifact = Artifact.read(model_file(repository, name))
    assert artifact.manifest is not None
    assert artifact.manifest.preprocessing is not None
    vectors, view = artifact.vectors(), artifact.manifest.preprocessing
    images, shape = png_images(vectors, artifact.manifest)[:4], (4,) if name == "fixed" else (4, 1)
    with ServerConnection(url) as server, runtimes.open(artifact.path, "onnxruntime", threads=1) as runtime:
        expected = runtime.infer({"input": vectors.inputs[:4]})
        served = server.infer(name, {"input": vectors.inputs[:4]}, "1")
        assert served.keys() == expected.keys()
        for output, values in expected.items():
            np.testing.assert_array_equal(served[output], values)
        pixels = np.stack([fit_or_name(image, view, 0) for image in images])
        expected = runtime.infer({"input": NetworkInput.find(runtime, view).from_pixels(pixels, view)})
        served = server.infer(name, {"image": np.array(images, object).reshape(shape)}, outputs=["logits"])
        np.testing.assert_array_equal(served["logits"], expected["logits"])
        assert list(served) == ["logits"]


def test_verify_checks_every_model_of_a_repository(repository: Path, url: str) -> None:
    done = verify(repository, "--url", url, "--json")
    assert done.code == 0, done.stderr
    results = {row["model"]: row for row in json.loads(done.stdout)}
    assert set(results) == set(MODELS)
    for name, row in results.items():
        assert (row["version"], row["digest_reported"], row["image_difference"]) == ("1", True, 0.0)
        assert row["parity"]["batches"] == ([4] if name == "fixed" else [1, 2, 3, 7])
        assert row["parity"]["runtime"] == "triton 2.51.0"
    assert [other["name"] for other in results["fp32"]["parity"]["others"]] == ["features", "cam"]


def test_verify_checks_an_artifact_by_its_name(repository: Path, url: str) -> None:
    file = repository.parent / "int8.onnx"
    done = verify(file, "--url", url)
    assert (done.code, done.stdout.count("\n")) == (0, 1)
    assert verify(file, "--url", url, "--model", "int8").code == 0
    other = verify(file, "--url", url, "--model", "fp32")
    assert (other.code, error_codes(other.stderr)) == (4, ["served-digest-mismatch"])
    absent = verify(file, "--url", url, "--model", "nothing")
    assert (absent.code, error_codes(absent.stderr)) == (4, ["model-not-served"])


def test_a_bad_request_is_refused_and_others_are_answered(repository: Path, url: str) -> None:
    good = png_images(*_vectors_and_manifest(repository, "fp32"))[0]
    array = Artifact.read(model_file(repository, "fp32")).vectors().inputs[:1]
    with ServerConnection(url) as server:
        for feeds, code in (
            ({"image": np.array([[b"no image"]], object)}, "image-format-unknown"),
            ({"image": np.array([[good[:60]]], object)}, "image-"),
            ({"image": np.array([[good]], object), "input": array}, "inputs-both"),
            ({"input": array.astype("float64")}, "FP64"),
            ({"input": array[:, :, :5]}, "shape"),
            ({"y": array}, "unexpected inference input"),
        ):
            with refuses(CheckFailedError, "request-refused", code):
                server.infer("fp32", feeds)
        with refuses(ModelMismatchError, "model-not-served", "version 9"):
            server.infer("fp32", {"input": array}, "9")
        assert server.infer("fp32", {"image": np.array([[good]], object)})["logits"].shape == (1, 10)


def _vectors_and_manifest(repository: Path, name: str) -> tuple[Vectors, Manifest]:
    artifact = Artifact.read(model_file(repository, name))
    assert artifact.manifest is not None
    return artifact.vectors(), artifact.manifest


def test_waiting_requests_are_executed_together(repository: Path, triton: TritonServer) -> None:
    inputs = Artifact.read(model_file(repository, "fp32")).vectors().inputs
    with runtimes.open(model_file(repository, "fp32"), "onnxruntime", threads=1) as runtime:
        expected = runtime.infer({"input": inputs})["logits"]
    before = triton.metric("nv_inference_count"), triton.metric("nv_inference_exec_count")

    def ask(client: int) -> None:
        row = client % len(inputs)
        with ServerConnection(triton.grpc) as server:
            for _ in range(40):
                served = server.infer("fp32", {"input": inputs[row : row + 1]})["logits"]
                np.testing.assert_allclose(served[0], expected[row], rtol=0, atol=1e-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert triton.metric("nv_inference_count") - before[0] == 320
    assert triton.metric("nv_inference_exec_count") - before[1] < 320


def test_what_is_served_wrongly_is_found(repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    spoilt = {
        "fp32": ("value[part]", "value[part] * -1"),  # wrong outputs
        "int8": ("np.stack(pixels)", "np.stack(pixels)[:, ::-1]"),  # wrong preparation of images
        "raw": ("", ""),
    }
    for name, (right, wrong) in spoilt.items():
        shutil.copytree(repository / name, broken / name)
        source = (broken / name / "1" / "model.py").read_text()
        assert right in source
        (broken / name / "1" / "model.py").write_text(source.replace(right, wrong))
    with triton_server(broken, environment=peer("triton")) as server:
        done = verify(broken, "--url", server.http)
        assert (done.code, error_codes(done.stderr)) == (1, ["parity-failed", "served-images-differ"])
        assert done.stdout.startswith("raw version 1 ")
        another = tmp_path / "another"
        shutil.copytree(repository / "raw", another / "raw")
        shutil.copytree(another / "raw" / "1", another / "raw" / "2")
        stale = verify(another, "--url", server.grpc)
        assert (stale.code, error_codes(stale.stderr)) == (4, ["served-versions-differ"])
        shutil.copytree(repository / "int8", another / "fp32")
        mixed = verify(another, "--url", server.grpc, "--model", "fp32")
        assert (mixed.code, error_codes(mixed.stderr)) == (4, ["served-digest-mismatch"])


def test_a_model_that_is_another_file_is_not_loaded(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "fp32", tmp_path / "repository" / "fp32")
    shutil.copytree(repository / "int8" / "1", tmp_path / "repository" / "fp32" / "1", dirs_exist_ok=True)
    with (
        refuses(CheckFailedError, "triton-not-ready", "the configuration names another file"),
        triton_server(tmp_path / "repository", environment=peer("triton")),
    ):
        pass


def test_numpy_2_is_refused_where_triton_misreads_it(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "fp32", tmp_path / "repository" / "fp32")
    with (
        refuses(CheckFailedError, "triton-not-ready", f"cannot exchange arrays with NumPy {np.__version__}"),
        triton_server(tmp_path / "repository", environment=peer("triton"), packages=Path(sys.prefix)),
    ):
        pass


def test_a_server_without_the_model_is_not_ready(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "fp32", tmp_path / "repository" / "fp32")
    model_file(tmp_path / "repository", "fp32").write_bytes(b"\x08\x01broken")
    options = ("--exit-on-error=false",)
    with triton_server(tmp_path / "repository", options, peer("triton"), ready=False) as server:
        done = verify(repository, "--model", "fp32", "--url", server.grpc)
        assert (done.code, error_codes(done.stderr)) == (5, ["server-not-ready"])


def test_the_newest_version_is_served(repository: Path, tmp_path: Path) -> None:
    folder, artifact = tmp_path / "repository", tmp_path / "raw.onnx"
    shutil.copytree(repository / "raw", folder / "raw")
    for file in repository.parent.glob("raw.onnx*"):
        shutil.copy(file, tmp_path)
    make_another(artifact)
    options = ("--backend", "python", "--threads", "1", "--open-with", "ort")
    assert here(main, "triton", artifact, *options, "-o", folder).stdout == f"{folder}/raw/2\n"
    with triton_server(folder, environment=peer("triton")) as server:
        done = verify(folder, "--url", server.http)
    assert (done.code, done.stdout.split()[:3]) == (0, ["raw", "version", "2"]), done.stderr


@pytest.mark.xfail(
    reason="Triton itself closes a kept connection at SIGTERM before the answer now and then: in 4 of 33 attempts",
    strict=False,
)
@pytest.mark.parametrize("attempt", range(3))
def test_sigterm_under_load_loses_no_request(repository: Path, tmp_path: Path, attempt: int) -> None:
    shutil.copytree(repository / "fp32", tmp_path / "repository" / "fp32")
    image = np.array([[png_images(*_vectors_and_manifest(repository, "fp32"))[0]]], object)
    answers, lost = [0] * 6, []
    enough, stopped = threading.Semaphore(0), threading.Event()

    def ask(client: int, url: str) -> None:
        with ServerConnection(url) as server:
            while not stopped.is_set():
                try:
                    server.infer("fp32", {"image": image})
                except (BackendUnavailableError, CheckFailedError, InputError) as error:
                    lost.append(error)
                    return
                answers[client] += 1
                enough.release()

    with triton_server(tmp_path / "repository", environment=peer("triton")) as server:
        urls = [server.http, server.grpc] * 3
        threads = [threading.Thread(target=ask, args=(client, url)) for client, url in enumerate(urls)]
        for thread in threads:
            thread.start()
        for _ in range(random.Random(attempt).randrange(6, 100)):
            assert enough.acquire(timeout=60)
        server.process.terminate()
        for _ in range(10):  # the load goes on, as until a balancer has noticed
            assert enough.acquire(timeout=60)
        stopped.set()
        for thread in threads:
            thread.join()
        assert server.process.wait(60) == 0
    assert lost == []
