"""What every server of the Open Inference Protocol V2 has to do, asked by Triton's client library.

The same checks run against ``rexport serve`` and against KServe's model server, with the same artifact behind both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import runtimes
from runtimes import Artifact
from runtimes.tensors.spec import Array


@dataclass(frozen=True)
class Target:
    """A server: ``http`` and ``grpc`` are host and port, and ``model`` is the name of the artifact's model."""

    http: str
    grpc: str
    model: str
    artifact: Artifact


@dataclass(frozen=True)
class Transport:
    """One of the ways to send a tensor and to get one back."""

    client_module: Any
    binary_in: bool
    binary_out: bool

    @contextmanager
    def client(self, target: Target) -> Iterator[Any]:
        address = target.http if self.client_module is tritonclient.http else target.grpc
        client = self.client_module.InferenceServerClient(address)
        try:
            yield client
        finally:
            client.close()

    def input(self, name: str, array: Array, datatype: str = "FP32") -> Any:
        tensor = self.client_module.InferInput(name, list(array.shape), datatype)
        if self.client_module is tritonclient.http:
            return tensor.set_data_from_numpy(array, binary_data=self.binary_in)
        return tensor.set_data_from_numpy(array)

    def output(self, name: str) -> Any:
        if self.client_module is tritonclient.http:
            return self.client_module.InferRequestedOutput(name, binary_data=self.binary_out)
        return self.client_module.InferRequestedOutput(name)

    def infer(self, target: Target, array: Array, **options: Any) -> Any:
        if self.client_module is tritonclient.http and not self.binary_in:
            options["headers"] = {"Content-Type": "application/json"}  # KServe asks for it
        with self.client(target) as client:
            return client.infer(
                options.pop("model", target.model),
                [self.input(options.pop("name", "input"), array)],
                outputs=[self.output(options.pop("output", "logits"))],
                **options,
            )


TRANSPORTS = {
    "http-json": Transport(tritonclient.http, False, False),
    "http-binary": Transport(tritonclient.http, True, True),
    "http-binary-in": Transport(tritonclient.http, True, False),
    "http-binary-out": Transport(tritonclient.http, False, True),
    "grpc": Transport(tritonclient.grpc, True, True),
}

Check = Callable[[Target, Transport], None]


def answers_are_bit_equal(target: Target, transport: Transport) -> None:
    """To those of ``runtimes`` in this process, for batches of one, three and seven images."""
    pixels = target.artifact.vectors().inputs
    with runtimes.open(target.artifact.path, threads=1) as runtime:
        for images in (1, 3, 7):
            logits = transport.infer(target, pixels[:images]).as_numpy("logits")
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(
                logits.view(np.uint32), runtime.infer({"input": pixels[:images]})["logits"].view(np.uint32)
            )


def the_server_is_live_and_ready(target: Target, transport: Transport) -> None:
    with transport.client(target) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(target.model)


def an_unknown_model_is_not_ready(target: Target, transport: Transport) -> None:
    with transport.client(target) as client, suppressed():
        assert not client.is_model_ready("none")


@contextmanager
def suppressed() -> Iterator[None]:
    """The protocol lets a server say no, or answer with an error."""
    try:
        yield
    except InferenceServerException:
        return


def metadata_describes_the_network(target: Target, transport: Transport) -> None:
    with transport.client(target) as client:
        found = client.get_model_metadata(target.model)
    if not isinstance(found, dict):
        from google.protobuf.json_format import MessageToDict

        found = MessageToDict(found, preserving_proto_field_name=True)
    assert found["name"] == target.model
    (image,), (logits,) = found["inputs"], found["outputs"]
    for tensor, name, shape in ((image, "input", [-1, 3, 32, 32]), (logits, "logits", [-1, 10])):
        assert (tensor["name"], tensor["datatype"], [int(size) for size in tensor["shape"]]) == (name, "FP32", shape)


def the_server_says_its_name_and_version(target: Target, transport: Transport) -> None:
    with transport.client(target) as client:
        found = client.get_server_metadata()
    values = found if isinstance(found, dict) else {"name": found.name, "version": found.version}
    assert values["name"]
    assert values["version"]


def the_id_of_a_request_comes_back(target: Target, transport: Transport) -> None:
    answer = transport.infer(target, target.artifact.vectors().inputs[:1], request_id="picture-7").get_response()
    assert (answer["id"] if isinstance(answer, dict) else answer.id) == "picture-7"


def wrong_requests_are_refused_and_the_server_goes_on(target: Target, transport: Transport) -> None:
    pixels = target.artifact.vectors().inputs[:1]
    wrong: list[tuple[Array, dict[str, Any]]] = [
        (pixels, {"model": "none"}),
        (pixels, {"name": "image"}),
        (pixels[:, :, :16], {}),
        (pixels[0], {}),
    ]
    for array, options in wrong:
        with pytest.raises(InferenceServerException):
            transport.infer(target, array, **options)
    answers_are_bit_equal(target, transport)


def an_unknown_output_is_refused(target: Target, transport: Transport) -> None:
    with pytest.raises(InferenceServerException):
        transport.infer(target, target.artifact.vectors().inputs[:1], output="probabilities")


CHECKS: tuple[Check, ...] = (
    answers_are_bit_equal,
    the_server_is_live_and_ready,
    an_unknown_model_is_not_ready,
    metadata_describes_the_network,
    the_server_says_its_name_and_version,
    the_id_of_a_request_comes_back,
    wrong_requests_are_refused_and_the_server_goes_on,
    an_unknown_output_is_refused,
)
