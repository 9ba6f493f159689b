"""The Open Inference Protocol: ``rexport serve`` by the checks that KServe's server passes as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from runtimes import Artifact
from tests.runtimes.serving.conformance import CHECKS, TRANSPORTS, Check, Target, answers_are_bit_equal
from tests.servers import serve_process


@pytest.fixture(scope="module")
def target(onnx_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    arguments = (f"net={onnx_artifact.path}", "--grpc-port", "0", "--threads", "1", "--drain", "0")
    with serve_process(tmp_path_factory.mktemp("conformance"), *arguments) as server:
        assert server.grpc is not None
        yield Target(f"{server.address.host}:{server.address.port}", server.grpc, "net", onnx_artifact)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_rexport_serve_conforms(check: Check, transport: str, target: Target) -> None:
    check(target, TRANSPORTS[transport])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_of_other_weights_is_caught(transport: str, target: Target, scaled: Artifact) -> None:
    with pytest.raises(AssertionError):
        answers_are_bit_equal(replace(target, artifact=scaled), TRANSPORTS[transport])


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same variant with other weights."""
    from exporter.export_request import ExportRequest
    from exporter.models.variants import variant
    from exporter.targets import onnx_file
    from tests.conftest import SILENT

    folder = tmp_path_factory.mktemp("other")
    return onnx_file.export(ExportRequest(variant("resnet20"), f"{folder}/resnet20.onnx", seed=1), SILENT)
