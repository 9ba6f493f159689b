"""A served model as a session, so that its answers are checked like those of a model in this process."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import quote as escape
from urllib.parse import urlsplit

import numpy as np

from benchmarks.records.plan import Endpoint
from benchmarks.worker.senders import GrpcSender, HttpSender, RawAnswer, Sender, SendError, new_loop
from exporter.deploy.served import DATATYPES
from runtimes import Artifact, Runtime
from runtimes.errors import CheckFailedError, quote
from runtimes.protocol import Arrays, Description
from runtimes.tensors.spec import TensorSpec

T = TypeVar("T")

UNKNOWN = "unknown"
"""The device and the arithmetic of a server, which its protocol does not tell."""


class RemoteSession:
    """A model on a server, with one event loop for all its requests. ``Runtime`` wraps it like a backend's session.

    Args:
        inputs: The inputs of the artifact.
        outputs: The outputs of the artifact.
        endpoint: The served model.
        loop: The event loop, which outlives the session.

    Raises:
        CheckFailedError: The host has no address.
    """

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.inputs, self.outputs, self.endpoint, self.loop = inputs, outputs, endpoint, loop
        self._is_grpc = endpoint.protocol == "grpc"
        self._library = importlib.import_module("tritonclient.grpc" if self._is_grpc else "tritonclient.http")
        name, _, version = endpoint.server.rpartition(" ")
        self.description = Description(name, version, UNKNOWN, endpoint.model, UNKNOWN, 1)

        async def connect() -> None:
            self.sender: Sender = GrpcSender(endpoint.url) if self._is_grpc else HttpSender(endpoint.url)

        self.wait_for(connect())

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the event loop and return its result.

        Raises:
            CheckFailedError: A request of it has no answer.
        """
        try:
            return self.loop.run_until_complete(work)
        except SendError as error:
            raise CheckFailedError(
                f"{self.endpoint.url} gave no answer: {quote(error)}", code="request-unanswered"
            ) from error
        except TimeoutError as error:
            raise CheckFailedError(
                f"{self.endpoint.url} gave no answer within {self.endpoint.timeout_s:g} s",
                code="answer-late",
                hint="--request-timeout waits longer",
            ) from error

    def encode(self, arrays: Arrays) -> bytes:
        """Return the whole request for some arrays: the head and body of HTTP, or a message of gRPC."""
        return self._encode_grpc(arrays) if self._is_grpc else self._encode_http(arrays)

    def _encode_http(self, arrays: Arrays) -> bytes:
        body, json_length = self._library.InferenceServerClient.generate_request_body(
            [self._entry(spec, arrays[spec.name]) for spec in self.inputs]
        )
        address, model, version = urlsplit(self.endpoint.url), escape(self.endpoint.model, safe=""), ""
        if self.endpoint.version:
            version = f"/versions/{escape(self.endpoint.version, safe='')}"
        lines = (
            f"POST {address.path.rstrip('/')}/v2/models/{model}{version}/infer HTTP/1.1",
            f"Host: {address.netloc}",
            "Content-Type: application/octet-stream",
            f"Inference-Header-Content-Length: {json_length}",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join((*lines, "", "")).encode() + bytes(body)

    def _entry(self, spec: TensorSpec, array: Any) -> Any:
        entry = self._library.InferInput(spec.name, list(array.shape), DATATYPE_OF[spec.dtype])
        entry.set_data_from_numpy(array)
        return entry

    def _encode_grpc(self, arrays: Arrays) -> bytes:
        message = self._library.service_pb2.ModelInferRequest(
            model_name=self.endpoint.model, model_version=self.endpoint.version
        )
        for spec in self.inputs:
            array = np.ascontiguousarray(arrays[spec.name])
            message.inputs.add(name=spec.name, datatype=DATATYPE_OF[spec.dtype], shape=array.shape)
            message.raw_input_contents.append(array.tobytes())
        content: bytes = message.SerializeToString()
        return content

    def decode(self, answer: RawAnswer) -> Arrays:
        """Return the outputs of an answer by name.

        Raises:
            CheckFailedError: The answer cannot be read, or lacks an output.
        """
        try:
            if self._is_grpc:
                result = self._library.InferResult(
                    self._library.service_pb2.ModelInferResponse.FromString(answer.content)
                )
            else:
                length = answer.headers.get("inference-header-content-length")
                result = self._library.InferenceServerClient.parse_response_body(
                    answer.content, header_length=None if length is None else int(length)
                )
            outputs = {spec.name: result.as_numpy(spec.name) for spec in self.outputs}
        except Exception as error:  # the library's parsers raise many kinds of errors
            raise self._unreadable(f"{type(error).__name__} {error}") from error
        lacking = [name for name, values in outputs.items() if values is None]
        if lacking:
            raise self._unreadable(f"output {lacking[0]!r} is missing")
        return outputs

    def _unreadable(self, what: str) -> CheckFailedError:
        return CheckFailedError(
            f"an answer of {self.endpoint.url} cannot be read: {quote(what)}", code="served-answer-unreadable"
        )

    async def send(self, request: bytes) -> RawAnswer:
        """Send a request and return its answer.

        Raises:
            SendError: The server refused it, or the connection failed.
            TimeoutError: There was no answer in time.
        """
        async with asyncio.timeout(self.endpoint.timeout_s):
            return await self.sender.send(request)

    def run(self, arrays: Arrays) -> Arrays:
        """Send one request and return the outputs, as ``Session.run``."""
        return self.decode(self.wait_for(self.send(self.encode(arrays))))

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        """Return a function that sends the same request again and waits for the answer."""
        request = self.encode(arrays)
        return lambda: self.wait_for(self._send_only(request))

    async def _send_only(self, request: bytes) -> None:
        await self.send(request)

    def close(self) -> None:
        """Close the connections."""
        self.wait_for(self.sender.close())


DATATYPE_OF = {dtype: datatype for datatype, dtype in DATATYPES.items()}
"""The protocol's data types by NumPy's names."""


class RemoteRuntime(Runtime):
    """The runtime of a served model.

    Args:
        artifact: The artifact that is served. It has a manifest.
        endpoint: The served model.

    Raises:
        CheckFailedError: The host has no address.

    Attributes:
        session: The session, which the runtime owns.
    """

    def __init__(self, artifact: Artifact, endpoint: Endpoint) -> None:
        assert artifact.manifest is not None
        self.session = RemoteSession(artifact.manifest.inputs, artifact.manifest.outputs, endpoint, new_loop())
        super().__init__(artifact, self.session)

    def close(self) -> None:
        """Close the connections and the event loop."""
        super().close()
        self.session.loop.close()
