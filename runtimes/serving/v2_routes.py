"""The routes of the Open Inference Protocol, version 2, over HTTP."""

from __future__ import annotations

from enum import Enum
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from runtimes.errors import InputError, quote
from runtimes.serving.body import ClientWatch, read_body
from runtimes.serving.inference_request import InferenceRequest, parse_request
from runtimes.serving.inference_response import encode_response, model_metadata, server_metadata
from runtimes.serving.model import ServedModel
from runtimes.serving.openapi import INFERENCE, NAME_PARAMETER, TENSOR_BODY, VERSION_PARAMETER, refusals
from runtimes.serving.request_log import record_of
from runtimes.serving.service import Service
from runtimes.serving.sole_client import connection_of

TAGS: list[str | Enum] = ["Open Inference Protocol"]

HEADER_LENGTH = "inference-header-content-length"
"""The header with the size of the JSON in front of binary tensors."""


def add_v2_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application, whose routes are direct.

    Args:
        app: The application.
        service: The models.
    """
    one = {"parameters": [NAME_PARAMETER]}
    both = {"parameters": [NAME_PARAMETER, VERSION_PARAMETER]}

    async def infer(request: Request) -> Response:
        return await _infer(service, request)

    async def metadata(request: Request) -> Response:
        return JSONResponse(model_metadata(_model(service, request)))

    async def model_ready(request: Request) -> Response:
        name = _model(service, request).name
        return JSONResponse({"name": name, "ready": not service.draining}, _ready_status(service))

    for path, extra, ending in (
        ("/v2/models/{name}", one, ""),
        ("/v2/models/{name}/versions/{version}", both, " of one version"),
    ):
        app.post(
            f"{path}/infer",
            summary=f"Outputs of a model{ending} for tensors",
            tags=TAGS,
            responses={200: INFERENCE, **refusals(400, 404, 408, 413, 415, 503)},
            openapi_extra={"requestBody": TENSOR_BODY, **extra},
        )(infer)
        app.get(
            path,
            summary=f"Inputs and outputs of a model{ending}",
            tags=TAGS,
            responses=refusals(404),
            openapi_extra=extra,
        )(metadata)
        app.get(
            f"{path}/ready",
            summary=f"Whether a model{ending} is ready",
            tags=TAGS,
            responses=refusals(404, 503),
            openapi_extra=extra,
        )(model_ready)
    _add_server_routes(app, service)


def _add_server_routes(app: FastAPI, service: Service) -> None:
    """Add the routes about the server as a whole."""

    @app.get("/v2/health/live", summary="Whether the process answers", tags=TAGS)
    async def live(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"live": True})

    @app.get("/v2/health/ready", summary="Whether requests should be sent here", tags=TAGS, responses=refusals(503))
    async def ready(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"ready": not service.draining}, _ready_status(service))

    @app.get("/v2", summary="Name, version and extensions of the server", tags=TAGS)
    async def server(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(server_metadata(app.version))

    @app.get("/v2/models", summary="Names of the models", tags=TAGS)
    async def models(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse({"models": list(service.models)})


def _ready_status(service: Service) -> int:
    return 503 if service.draining else 200


def _model(service: Service, request: Request) -> ServedModel:
    """Return the model of an address, and note its name."""
    parameters = request.path_params
    model = service.model(parameters["name"], parameters.get("version", ""))
    record_of(request.scope).model = model.name
    return model


async def _infer(service: Service, request: Request) -> Response:
    """Answer a request for inference."""
    model = _model(service, request)
    header_bytes = _header_bytes(request)
    with service.reading(model):
        body = await read_body(request, service.settings)
    record_of(request.scope).received_bytes = len(body)

    def prepare() -> InferenceRequest:
        return parse_request(body, header_bytes, model.runtime.inputs, model.runtime.outputs)

    with ClientWatch(request):
        parsed, outputs = await service.run(model, prepare, connection_of(request, body))
        content, json_bytes = await service.encode(lambda: encode_response(model, parsed, outputs), outputs)
    headers: dict[str, Any] = {} if json_bytes is None else {HEADER_LENGTH: str(json_bytes)}
    media_type = "application/json" if json_bytes is None else "application/octet-stream"
    return Response(content, headers=headers, media_type=media_type)


def _header_bytes(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise InputError(
            f"the header {HEADER_LENGTH} is {quote(text)!r}, and not a number of bytes", code="header-length-invalid"
        )
    return int(text)
