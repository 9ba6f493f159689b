"""The application over real sockets: the protocol, labels, refusals, and requests that attack."""

from __future__ import annotations

import http.client
import json
import re
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes import Artifact
from runtimes.errors import UsageError
from runtimes.serving import ServedModel, ServingSettings, create_app
from runtimes.serving.refusals import status_of
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.serving.conftest import png_of
from tests.samples import SCRIPT
from tests.servers import AppServer, serve_app

LABEL, INFER = "/v1/label", "/v2/models/resnet20/infer"
IMAGE = {"Content-Type": "image/png"}


def tensor(array: Any, **fields: object) -> dict[str, object]:
    return {"name": "input", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()} | fields


def noise(count: int = 1) -> Any:
    return np.random.default_rng(count).standard_normal((count, 3, 32, 32), np.float32)


def multipart(parts: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    lines = [
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in parts
    ]
    return b"".join(lines) + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


def test_labels_are_those_of_the_classifier(server: AppServer, bundled_path: Path) -> None:
    image = png_of(1)
    reply = server.address.post(f"{LABEL}?top=3", image, IMAGE)
    assert reply.status == 200
    with runtimes.Classifier.open(bundled_path, threads=1) as classifier:
        (expected,) = classifier.predict(image, top=3)
    labels = [{"name": each.name, "index": each.index, "probability": each.probability} for each in expected.labels]
    assert reply.json == {"model": "resnet20", "images": [{"labels": labels}]}


def test_a_form_has_labels_in_the_order_of_its_images(server: AppServer, bundled_path: Path) -> None:
    images = [png_of(seed) for seed in range(5)]
    reply = server.address.post(LABEL, *multipart([(f"{number}.png", image) for number, image in enumerate(images)]))
    with runtimes.Classifier.open(bundled_path, threads=1) as classifier:
        expected = [prediction.label for prediction in classifier.predict(images)]
    assert [image["labels"][0]["name"] for image in reply.json["images"]] == expected


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
def test_tensors_in_json_are_bit_equal(server: AppServer, bundled_path: Path, nested: bool) -> None:
    array = noise(2)
    body = {"id": "7", "inputs": [tensor(array, data=array.tolist() if nested else array.ravel().tolist())]}
    reply = server.address.post(INFER, json.dumps(body))
    with runtimes.open(bundled_path, threads=1) as runtime:
        expected = runtime.infer({"input": array})["logits"]
    (output,) = reply.json["outputs"]
    assert (reply.json["id"], output["shape"], output["datatype"]) == ("7", [2, 10], "FP32")
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(2, 10), expected)


def test_metadata_describes_server_and_model(server: AppServer) -> None:
    assert server.address.get("/v2").json["extensions"] == ["binary_tensor_data"]
    assert server.address.get("/v2/models").json == {"models": ["resnet20"]}
    model = server.address.get("/v2/models/resnet20/versions/1").json
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert server.address.get("/v2/models/resnet20/ready").status == 200


def test_health_is_not_ready_while_draining(fake_artifact: FakeFactory) -> None:
    with serve_app([ServedModel.open(fake_artifact().path, "scripted", "fake")]) as server:
        assert server.address.get("/v2/health/ready").status == 200
        server.service.draining = True
        reply = server.address.get("/v2/health/ready")
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert server.address.get("/v2/health/live").status == 200
        assert server.address.post("/v1/label", png_of(1)).status == 200


def test_metrics_count_requests_and_images(server: AppServer) -> None:
    server.address.post(LABEL, png_of(2), IMAGE)
    text = server.address.get("/metrics").body.decode()
    answered = re.search(r'rexport_requests_total\{model="resnet20",route="/v1/label",status="200"\} (\S+)', text)
    assert answered is not None
    assert float(answered[1]) >= 1
    assert 'rexport_batch_rows_count{model="resnet20"}' in text
    assert 'rexport_queued_requests{model="resnet20"} 0.0' in text


@pytest.mark.parametrize("path", ["/", "/v2/health/ready", "/v2/models/resnet20", "/metrics", "/nothing"])
def test_head_is_get_without_the_body(server: AppServer, path: str) -> None:
    """As load balancers ask; the connection stays usable."""
    expected = server.address.get(path)
    connection = http.client.HTTPConnection(server.address.host, server.address.port)
    for _ in range(2):
        connection.request("HEAD", path)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (expected.status, b"")
        assert reply.headers["content-type"] == expected.headers["content-type"]
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_request_id_is_kept_or_made(server: AppServer) -> None:
    kept = server.address.call("GET", "/v2", headers={"X-Request-Id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    made = server.address.call("GET", "/v2", headers={"X-Request-Id": "bad id\t"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", made)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "route-unknown"),
        ("GET", LABEL, None, 405, "method-not-allowed"),
        ("POST", LABEL, b"", 400, "image-file-empty"),
        ("POST", LABEL, b"no image", 400, "image-format-unknown"),
        ("POST", LABEL, png_of(1)[:-40], 400, "image-broken"),
        ("POST", f"{LABEL}?top=0", png_of(1), 400, "top-out-of-range"),
        ("POST", f"{LABEL}?topk=3", png_of(1), 400, "query-parameter-unknown"),
        ("POST", f"{LABEL}?top=1&top=2", png_of(1), 400, "query-parameter-repeated"),
        ("POST", "/v1/explain?top=2", png_of(1), 400, "query-parameter-unknown"),
        ("POST", f"{LABEL}?model=../etc", png_of(1), 404, "model-unknown"),
        ("GET", "/v2/models/other", None, 404, "model-unknown"),
        ("GET", "/v2/models/resnet20/versions/2", None, 404, "model-version-unknown"),
        ("POST", INFER, b"{", 400, "request-json-invalid"),
        ("POST", INFER, b"[" * 100_000, 400, "request-json-invalid"),
        ("POST", INFER, b"[]", 400, "request-not-object"),
        ("POST", INFER, b'{"inputs": 1}', 400, "request-field-invalid"),
        ("POST", INFER, b'{"inputs": [{}]}', 400, "request-names"),
        ("POST", INFER, b'{"inputs": []}', 400, "input-names-mismatch"),
        ("POST", INFER, b'{"id": 3, "inputs": []}', 400, "request-id-invalid"),
        ("POST", INFER, b'{"parameters": 3, "inputs": []}', 400, "parameters-invalid"),
        ("POST", INFER, b'{"parameters": {"priority": 3}, "inputs": []}', 400, "parameter-unsupported"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(
    server: AppServer, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    reply = server.address.call(method, path, body)
    assert (reply.status, reply.code) == (status, code)
    assert reply.json["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("code", ["activation-unclear", "output-not-probability"])
def test_a_fault_of_the_model_is_not_the_clients(code: str) -> None:
    assert status_of(UsageError("the outputs are logits", code=code)) == 500


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"datatype": "BYTES"}, "datatype-unknown"),
        ({"datatype": ["FP32"]}, "datatype-unknown"),
        ({"datatype": "FP64"}, "input-dtype-mismatch"),
        ({"shape": [1, 3, 32, 33]}, "tensor-data-shape"),
        ({"shape": [1, 3, -1, 32]}, "tensor-shape-invalid"),
        ({"shape": [1 << 40]}, "tensor-shape-invalid"),
        ({"shape": [True, 3, 32, 32]}, "tensor-shape-invalid"),
        ({"shape": [1] * 9}, "tensor-shape-invalid"),
        ({"shape": "13"}, "tensor-shape-invalid"),
        ({"shape": [3, 1, 32, 32]}, "input-shape-mismatch"),
        ({"data": ["1"] * 3072}, "tensor-data-type"),
        ({"data": [True] * 3072}, "tensor-data-type"),
        ({"data": [1e300] * 3072}, "tensor-data-range"),
        ({"data": [[1, 2], [3]]}, "tensor-data-shape"),
        ({"data": {}}, "tensor-data-shape"),
        ({"name": "other"}, "input-names-mismatch"),
        ({"parameters": {"shared_memory_region": "r"}}, "parameter-unsupported"),
        ({"parameters": {"binary_data_size": 4}}, "binary-size-invalid"),
        ({"parameters": {"binary_data_size": -1}}, "binary-size-invalid"),
    ],
    ids=str,
)
def test_a_wrong_tensor_is_refused(server: AppServer, fields: dict[str, object], code: str) -> None:
    reply = server.address.post(INFER, json.dumps({"inputs": [tensor(noise()) | fields]}))
    assert (reply.status, reply.code) == (400, code)


@pytest.mark.parametrize(
    ("shape", "size", "extra", "length", "code"),
    [
        ([1, 3, 32, 32], 12287, b"", None, "tensor-size-mismatch"),
        ([1, 3, 32, 31], 12288, b"", None, "tensor-size-mismatch"),
        ([2_000_000_000, 2_000_000_000], 12288, b"", None, "tensor-size-mismatch"),
        ([1, 3, 32, 32], 12289, b"", None, "binary-size-invalid"),
        ([1, 3, 32, 32], 12288, b"x", None, "binary-bytes-left"),
        ([1, 3, 32, 32], 12288, b"", "1000000", "request-header-size"),
        ([1, 3, 32, 32], 12288, b"", "-1", "header-length-invalid"),
        ([1, 3, 32, 32], 12288, b"", "9" * 5000, "header-length-invalid"),
    ],
)  # fmt: skip
def test_a_wrong_binary_tensor_is_refused(
    server: AppServer, shape: list[int], size: int, extra: bytes, length: str | None, code: str
) -> None:
    item = {"name": "input", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [item]}).encode()
    content = noise().tobytes()[: min(size, 12288)]
    header = {"Inference-Header-Content-Length": str(len(text)) if length is None else length}
    reply = server.address.post(INFER, text + content + extra, header)
    assert (reply.status, reply.code) == (400, code)


@pytest.mark.parametrize(("timeout", "code"), [("x", "request-timeout-invalid"), (1, "deadline-passed")])
def test_the_timeout_of_a_request_is_kept(fake_artifact: FakeFactory, timeout: object, code: str) -> None:
    models = [ServedModel.open(fake_artifact(replace(SCRIPT, delays_s=(0.1,))).path, "scripted", "fake")]
    array = np.zeros((1, 3, 8, 8), np.float32)
    body = json.dumps({"inputs": [tensor(array)], "parameters": {"timeout": timeout}})
    with serve_app(models) as server, server.address.connect() as other:
        batcher = server.service._batchers["scripted"]
        image = png_of(1)
        other.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(image), image))
        _wait_for(lambda: batcher.admitted == 1)
        assert server.address.post("/v2/models/scripted/infer", body).code == code


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_an_image_of_too_many_pixels_is_not_decoded(server: AppServer) -> None:
    reply = server.address.post(LABEL, bomb(65535, 65535), IMAGE)
    assert (reply.status, reply.code) == (400, "image-too-large")
    assert server.address.post(LABEL, bomb(10_000, 5_001), IMAGE).code == "image-too-large"


@pytest.mark.parametrize(
    ("parts", "code"),
    [([], "form-empty"), ([("x.png", b"no image")], "image-format-unknown"), ([("x", b"")] * 65, "form-invalid")],
    ids=["empty", "broken", "many"],
)
def test_a_wrong_form_is_refused(server: AppServer, parts: list[tuple[str, bytes]], code: str) -> None:
    reply = server.address.post(LABEL, *multipart(parts))
    assert (reply.status, reply.code) == (400, code)


def test_the_broken_image_of_a_form_is_named(server: AppServer) -> None:
    body, headers = multipart([("a.png", png_of(1)), ("b.png", png_of(2)[:-30]), ("c.png", png_of(3))])
    reply = server.address.post(LABEL, body, headers)
    assert (reply.status, reply.code) == (400, "image-broken")
    assert reply.json["error"].startswith("image 1:")


@pytest.mark.parametrize("path", [LABEL, "/v2/models/scripted/infer"])
def test_a_body_over_the_limit_is_refused(fake_artifact: FakeFactory, path: str) -> None:
    models = [ServedModel.open(fake_artifact().path, "scripted", "fake")]
    with serve_app(models, ServingSettings(max_bytes=1000)) as server:
        reply = server.address.post(path, b"x" * 1001)
        assert (reply.status, reply.code) == (413, "body-too-large")
        chunked = server.address.post(path, iter([b"x" * 600, b"x" * 600]))
        assert (chunked.status, chunked.code) == (413, "body-too-large")
        said = server.address.call("POST", path, headers={"Content-Length": str(1 << 30), "Expect": "100-continue"})
        assert said.status == 413


def test_a_slow_body_is_refused(fake_artifact: FakeFactory) -> None:
    models = [ServedModel.open(fake_artifact().path, "scripted", "fake")]
    with serve_app(models, ServingSettings(timeout_s=0.2)) as server, server.address.connect() as client:
        client.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        assert server.service.model(None).name == "scripted"


def test_a_compressed_body_is_refused(server: AppServer) -> None:
    reply = server.address.post(LABEL, zlib.compress(png_of(1)), {"Content-Encoding": "deflate"})
    assert (reply.status, reply.code) == (415, "content-encoding-unsupported")


def test_errors_name_no_path(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact = fake_artifact(replace(SCRIPT, fail_at=0))
    with serve_app([ServedModel.open(artifact.path, "scripted", "fake")]) as server:
        reply = server.address.post(LABEL, png_of(1))
        assert (reply.status, reply.code) == (503, "script-call-fails")
        assert str(tmp_path) not in reply.body.decode()
        assert reply.headers["retry-after"] == "1"
        assert server.address.post(LABEL, png_of(1)).status == 200


def test_a_full_queue_is_503_with_retry_after(fake_artifact: FakeFactory) -> None:
    models = [ServedModel.open(fake_artifact().path, "scripted", "fake")]
    with serve_app(models, ServingSettings(queue=1)) as server:
        place = server.service._batchers["scripted"].admit(lambda _: None)
        reply = server.address.post(LABEL, png_of(1))
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "queue-full", "1")
        server.service._batchers["scripted"].withdraw(place)
        assert server.address.post(LABEL, png_of(1)).status == 200


def test_bodies_that_arrive_at_once_are_bounded(fake_artifact: FakeFactory) -> None:
    models = [ServedModel.open(fake_artifact().path, "scripted", "fake")]
    with serve_app(models, ServingSettings(queue=1)) as server, server.address.connect() as slow:
        slow.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        _wait_for(lambda: server.service._reading == 1)
        assert server.address.post(LABEL, png_of(1)).code == "too-many-bodies"
        slow.close()
        _wait_for(lambda: server.service._reading == 0)
        assert server.address.post(LABEL, png_of(1)).status == 200


def test_a_client_that_leaves_frees_its_place(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact(replace(SCRIPT, delays_s=(0.5, 0.0)))
    with serve_app([ServedModel.open(artifact.path, "scripted", "fake")], ServingSettings(max_batch=1)) as server:
        batcher = server.service._batchers["scripted"]
        image, clients = png_of(1), []
        for count in (1, 2):
            clients.append(server.address.connect())
            clients[-1].sendall(
                b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(image) + image
            )
            _wait_for(lambda count=count: batcher.admitted == count)
        clients[1].close()
        _wait_for(lambda: batcher.admitted == 1)
        assert clients[0].recv(100).startswith(b"HTTP/1.1 200 ")
        clients[0].close()


def _wait_for(condition: Any) -> None:
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_two_models_need_different_names(fake_artifact: FakeFactory) -> None:
    models = [ServedModel.open(fake_artifact().path, "scripted", "fake") for _ in range(2)]
    with refuses(UsageError, "model-name-repeated", "scripted"):
        create_app(models)


def test_several_models_answer_by_name(fake_artifact: FakeFactory, onnx_artifact: Artifact) -> None:
    first = ServedModel.open(fake_artifact().path, "a", "fake")
    second = ServedModel.open(onnx_artifact.path, "b", threads=1)
    with serve_app([first, second]) as server:
        assert server.address.post(LABEL, png_of(1)).code == "model-required"
        assert server.address.post(f"{LABEL}?model=a", png_of(1)).json["model"] == "a"
        assert server.address.post(f"{LABEL}?model=b", png_of(1)).json["model"] == "b"


def test_openapi_describes_every_route(server: AppServer) -> None:
    paths = server.address.get("/openapi.json").json["paths"]
    assert {"/v1/label", "/v2", "/v2/health/live", "/v2/models/{name}/infer", "/metrics"} <= set(paths)
    assert server.address.get("/docs").status == 404
