"""``rbench load --url`` against ``rexport serve`` and a real Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.run import LoadSpec, run
from benchmarks.records.plan import Endpoint
from benchmarks.records.request import BenchmarkRequest, RunListener
from benchmarks.records.samples import LoadResult
from exporter.deploy.triton_repository import TritonRequest, add_version
from exporter.deploy.triton_settings import TritonSettings
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from scripts.triton_server import triton_server
from tests.conftest import SILENT, FakeFactory
from tests.peers import peer
from tests.servers import serve_process


def measure(path: Path, load_spec: LoadSpec, batch: int = 1) -> list[LoadResult]:
    listener = RunListener(lambda *_: None, lambda _: None)
    request = BenchmarkRequest((str(path),), duration_s=0.3, batches=(batch,))
    results = list(run(request, load_spec, listener))
    assert [result.reason for result in results] == [None] * len(results)
    return [result.load for result in results if result.load is not None]


def test_rexport_serve_answers_both_protocols(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    path = fake_artifact(name="net.fake").path
    with serve_process(tmp_path, path, "--grpc-port", "0") as server:
        for url in (f"http://{server.address.host}:{server.address.port}", f"grpc://{server.grpc}"):
            (load,) = measure(path, LoadSpec(("clients",), clients=(8,), endpoint=Endpoint(url)))
            assert load.served is not None
            assert load.served.server.startswith("rexport ")
            assert (load.served.model, load.served.failures) == ("net", {})


@pytest.mark.peers
def test_triton_answers_all_shapes_over_both_protocols(tmp_path: Path) -> None:
    environment = peer("triton")
    request = ExportRequest(variant("resnet20"), f"{tmp_path}/resnet20.onnx", weights="bundled")
    artifact = onnx_file.export(request, SILENT)
    settings = TritonSettings("python", threads=1, opened_with="onnxruntime")
    add_version(artifact.path, TritonRequest(tmp_path / "repository", settings), lambda _: None)
    with triton_server(tmp_path / "repository", environment=environment) as server:
        for url in (server.http, server.grpc):
            loads = measure(artifact.path, LoadSpec(clients=(4,), endpoint=Endpoint(url)), batch=2)
            assert [load.shape for load in loads] == ["single-stream", "server", "fixed-rate", "clients", "batches"]
            for load in loads:
                assert load.served is not None
                assert (load.served.server.split()[0], load.served.model_version) == ("triton", "1")
                assert load.served.failures == {}
