"""The routes of the Open Inference Protocol, version 2, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from runtimes.errors import InputError, quote
from runtimes.serving.body import ClientWatch, read_body
from runtimes.serving.inference_request import InferenceRequest, parse_request
from runtimes.serving.inference_response import encode_response, model_metadata, server_metadata
from runtimes.serving.openapi import BINARY_BODY, INFERENCE, refusals
from runtimes.serving.request_log import record_of
from runtimes.serving.service import Service

HEADER_LENGTH = "inference-header-content-length"
"""The header with the size of the JSON in front of binary tensors."""


def v2_router(service: Service, version: str) -> APIRouter:
    """Return the routes.

    Args:
        service: The models.
        version: The version of rexport.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", summary="Name, version and extensions of the server")
    async def server() -> JSONResponse:
        return JSONResponse(server_metadata(version))

    @router.get("/health/live", summary="Whether the process answers")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Whether requests should be sent here", responses=refusals(503))
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not service.draining}, 503 if service.draining else 200)

    @router.get("/models", summary="Names of the models")
    async def models() -> JSONResponse:
        return JSONResponse({"models": list(service.models)})

    async def metadata(name: str, version: str = "") -> JSONResponse:
        return JSONResponse(model_metadata(service.model(name, version)))

    async def model_ready(name: str, version: str = "") -> JSONResponse:
        model = service.model(name, version)
        return JSONResponse({"name": model.name, "ready": not service.draining}, 503 if service.draining else 200)

    async def infer(request: Request, name: str, version: str = "") -> Response:
        return await _infer(service, request, name, version)

    for path, ending in (("/models/{name}", ""), ("/models/{name}/versions/{version}", " of one version")):
        router.get(path, summary=f"Inputs and outputs of a model{ending}", responses=refusals(404))(metadata)
        router.get(f"{path}/ready", summary=f"Whether a model{ending} is ready", responses=refusals(404, 503))(
            model_ready
        )
        router.post(
            f"{path}/infer",
            summary=f"Outputs of a model{ending} for tensors",
            responses={200: INFERENCE, **refusals(400, 404, 408, 413, 415, 503)},
            openapi_extra={"requestBody": BINARY_BODY},
        )(infer)
    return router


async def _infer(service: Service, request: Request, name: str, version: str) -> Response:
    """Answer a request for inference."""
    model = service.model(name, version)
    record = record_of(request.scope)
    record.model = model.name
    service.check_place(model)
    header_bytes = _header_bytes(request)
    body = await read_body(request, service.settings)
    record.received_bytes = len(body)

    def prepare() -> InferenceRequest:
        return parse_request(body, header_bytes, model.runtime.inputs, model.runtime.outputs)

    with ClientWatch(request):
        parsed, outputs = await service.run(model, prepare)
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
