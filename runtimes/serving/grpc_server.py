"""The Open Inference Protocol, version 2, over gRPC. The messages are those of Triton's client library."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

from runtimes.errors import InputError, ResourceError, quote
from runtimes.serving.datatypes import DATATYPES, check_shape, dtype_of, from_bytes, from_numbers
from runtimes.serving.inference_request import MAX_TENSORS, InferenceRequest, choose_outputs
from runtimes.serving.inference_response import EXTENSIONS, SERVER_NAME, model_metadata, to_bytes
from runtimes.serving.model import VERSION, ServedModel
from runtimes.serving.refusals import CLIENT_GONE, GRPC_CODES, code_of, message_of, status_of
from runtimes.serving.request_log import RequestLog, RequestRecord, request_id
from runtimes.serving.service import Service
from runtimes.tensors.spec import Arrays
from runtimes.tensors.validation import check_feeds

ID_KEY = "x-request-id"
"""The key of a request's id in the metadata of calls and answers."""

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""The field of a message that holds the numbers of a datatype. FP16 can only be sent as bytes."""

_OVERHEAD_BYTES = 64 << 10
"""The size of a message's fields besides the tensors, at most."""

_OTHER_CALLS = 64
"""The number of calls at once beside those that have places in the queues, at most. gRPC refuses more by itself."""

T = TypeVar("T")


class GrpcServer:
    """The gRPC server of one process.

    Args:
        service: The models.
        log: The log.
        address: The address, whose port other processes of the server may listen at, too.

    Raises:
        ResourceError: The address cannot be used.
    """

    def __init__(self, service: Service, log: RequestLog, address: str) -> None:
        limit = service.settings.max_bytes + _OVERHEAD_BYTES
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
            ),
            maximum_concurrent_rpcs=len(service.models) * service.settings.queue + _OTHER_CALLS,
        )
        services.add_GRPCInferenceServiceServicer_to_server(_Servicer(service, log), self._server)
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ResourceError(
                f"cannot listen at {address}: {quote(error)}",
                code="grpc-address-unusable",
                hint="choose another --grpc-port; 0 takes a free one",
            ) from error

    async def start(self) -> None:
        """Begin to accept calls."""
        await self._server.start()

    async def stop(self, finish_s: float) -> None:
        """Accept no more calls, and wait until those in work are answered, for ``finish_s`` seconds at most."""
        await self._server.stop(finish_s)


class _Servicer(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls. Those of Triton that change the server are not here, so that gRPC answers UNIMPLEMENTED."""

    def __init__(self, service: Service, log: RequestLog) -> None:
        self._service = service
        self._log = log

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ServerLive", request, context, self._live)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ServerReady", request, context, self._ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ModelReady", request, context, self._model_ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ServerMetadata", request, context, self._metadata)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ModelMetadata", request, context, self._model_metadata)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ModelInfer", request, context, self._infer)

    async def _answer(
        self, call: str, request: Any, context: Any, work: Callable[[Any, RequestRecord], Awaitable[T]]
    ) -> T:
        """Answer a call with what ``work`` returns, or with the status of its error."""
        given = next((value for key, value in context.invocation_metadata() if key == ID_KEY), None)
        record = RequestRecord(request_id(given if isinstance(given, str) else None), status=200)
        record.received_bytes = request.ByteSize()
        try:
            answer = await work(request, record)
            record.sent_bytes = answer.ByteSize()  # type: ignore[attr-defined]
            await context.send_initial_metadata(((ID_KEY, record.id),))
            return answer
        except asyncio.CancelledError:
            record.status = CLIENT_GONE
            raise
        except Exception as error:
            record.status, record.code = status_of(error), code_of(error)
            if record.status == 500:
                self._log.failure(record, error)
            trailing = ((ID_KEY, record.id), ("error-code", record.code))
            await context.abort(_grpc_code(error, record.status), message_of(error), trailing)
            raise  # abort has raised already
        finally:
            self._log.finish("gRPC", call, record, self._service.metrics)

    async def _live(self, request: Any, record: RequestRecord) -> Any:  # noqa: ARG002
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, request: Any, record: RequestRecord) -> Any:  # noqa: ARG002
        return messages.ServerReadyResponse(ready=not self._service.draining)

    async def _model_ready(self, request: Any, record: RequestRecord) -> Any:
        record.model = self._service.model(request.name, request.version).name
        return messages.ModelReadyResponse(ready=not self._service.draining)

    async def _metadata(self, request: Any, record: RequestRecord) -> Any:  # noqa: ARG002
        version = importlib.metadata.version("rexport")
        return messages.ServerMetadataResponse(name=SERVER_NAME, version=version, extensions=EXTENSIONS)

    async def _model_metadata(self, request: Any, record: RequestRecord) -> Any:
        model = self._service.model(request.name, request.version)
        record.model = model.name
        return messages.ModelMetadataResponse(**model_metadata(model))

    async def _infer(self, request: Any, record: RequestRecord) -> Any:
        model = self._service.model(request.model_name, request.model_version)
        record.model = model.name
        parsed, outputs = await self._service.run(model, lambda: _parse(request, model))
        return await self._service.encode(lambda: _response(model, parsed, outputs), outputs)


def _grpc_code(error: Exception, status: int) -> Any:
    """Return the status code of gRPC. A call that waited too long has its own one."""
    if code_of(error) == "deadline-passed":
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return getattr(grpc.StatusCode, GRPC_CODES.get(status, "INVALID_ARGUMENT"))


def _parse(request: Any, model: ServedModel) -> InferenceRequest:
    """Return the request of a message: tensors as bytes behind all inputs, or as numbers in each."""
    raw = request.raw_input_contents
    if len(request.inputs) > MAX_TENSORS or len(request.outputs) > MAX_TENSORS:
        raise InputError(f"the request has more than {MAX_TENSORS} inputs or outputs", code="request-too-many-tensors")
    if raw and len(raw) != len(request.inputs):
        raise InputError(
            f"the request has {len(request.inputs)} inputs, but the bytes of {len(raw)}", code="raw-inputs-mismatch"
        )
    parameters = [("the request", request), *((f"input {quote(item.name)}", item) for item in request.inputs)]
    for where, item in (*parameters, *((f"output {quote(item.name)}", item) for item in request.outputs)):
        _refuse_parameters(where, item, ("timeout",) if item is request else ())
    feeds: Arrays = {}
    for number, item in enumerate(request.inputs):
        dtype, shape = dtype_of(item.datatype, item.name), check_shape(list(item.shape), item.name)
        if item.name in feeds:
            raise InputError(f"input {quote(item.name)} is there twice", code="inputs-repeated")
        feeds[item.name] = (
            from_bytes(raw[number], dtype, shape, item.name)
            if raw
            else from_numbers(_numbers(item), dtype, shape, item.name)
        )
    requested = {item.name: True for item in request.outputs}
    outputs = choose_outputs(requested, model.runtime.outputs) or {spec.name: True for spec in model.runtime.outputs}
    timeout_us = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
    return InferenceRequest(
        request.id, check_feeds(model.runtime.inputs, feeds), outputs, timeout_us / 1e6 if timeout_us > 0 else None
    )


def _refuse_parameters(where: str, item: Any, known: Sequence[str]) -> None:
    for name in item.parameters:
        if name not in known:
            raise InputError(
                f"the parameter {quote(name)!r} of {where} is not supported",
                code="parameter-unsupported",
                hint=f"only {', '.join(known)} can be given here" if known else None,
            )


def _numbers(item: Any) -> list[Any]:
    field = _CONTENTS.get(item.datatype)
    if field is None:
        raise InputError(
            f"input {quote(item.name)}: numbers of the datatype {quote(item.datatype)} have to be sent as bytes",
            code="raw-input-required",
        )
    return list(getattr(item.contents, field))


def _response(model: ServedModel, request: InferenceRequest, outputs: Arrays) -> Any:
    """Return the message with the requested outputs, as bytes."""
    response = messages.ModelInferResponse(model_name=model.name, model_version=VERSION, id=request.id)
    for name in request.outputs:
        array = np.asarray(outputs[name])
        response.outputs.add(name=name, datatype=DATATYPES[str(array.dtype)], shape=array.shape)
        response.raw_output_contents.append(to_bytes(array))
    return response
