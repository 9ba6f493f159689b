"""``create_app``: the models of a server as an ASGI application of FastAPI."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from runtimes.errors import InputError, RexportError
from runtimes.serving.direct_route import DirectRoute
from runtimes.serving.explain_routes import add_explain_route
from runtimes.serving.label_routes import add_label_route
from runtimes.serving.metrics import CONTENT_TYPE, ServingMetrics
from runtimes.serving.model import ServedModel
from runtimes.serving.pages import add_pages
from runtimes.serving.refusals import code_of, status_of
from runtimes.serving.request_log import LogFormat, RequestEnvelope, RequestLog, error_body, record_of
from runtimes.serving.service import Service
from runtimes.serving.settings import DEFAULT_SETTINGS, ServingSettings
from runtimes.serving.v2_routes import add_v2_routes


def create_app(
    models: Sequence[ServedModel], settings: ServingSettings = DEFAULT_SETTINGS, log_format: LogFormat = "none"
) -> FastAPI:
    """Return an application that serves models: on its own, or mounted in another one.

    The application needs no lifespan. ``app.state.service`` is its ``Service``.

    Args:
        models: The opened models, which stay the caller's. Their names have to differ.
        settings: The limits.
        log_format: How requests are logged on standard error.

    Raises:
        UsageError: Two models have the same name.

    Example:
        Serve a model below a path of an app:

            app = fastapi.FastAPI()
            app.mount("/models", create_app([ServedModel.open("resnet20.onnx")]))
    """
    return app_of(Service(models, settings, ServingMetrics()), RequestLog(log_format))


def app_of(service: Service, log: RequestLog) -> FastAPI:
    """Return the application of a service.

    Args:
        service: The models.
        log: The log of its requests.
    """
    version = importlib.metadata.version("rexport")
    app = FastAPI(title="rexport", version=version, docs_url=None, redoc_url=None)
    app.state.service = service
    app.router.route_class = DirectRoute
    add_label_route(app, service)  # routes are tried in this order
    add_v2_routes(app, service)
    add_explain_route(app, service)
    add_pages(app, service, version)

    @app.get("/metrics", summary="Metrics for Prometheus", tags=["Metrics"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:  # noqa: ARG001
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    async def refuse(request: Request, error: Exception) -> Response:
        record = record_of(request.scope)
        record.code, status = code_of(error), status_of(error)
        if status == 500:
            log.failure(record, error)
        headers = {"retry-after": str(service.retry_after_s(record.model))} if status == 503 else {}
        return Response(error_body(record, error), status, headers, "application/json")

    async def refuse_route(request: Request, error: Exception) -> Response:
        answer = await refuse(request, _route_error(request, error))
        answer.headers.update(getattr(error, "headers", None) or {})
        return answer

    app.add_exception_handler(RexportError, refuse)
    app.add_exception_handler(MemoryError, refuse)
    app.add_exception_handler(HTTPException, refuse_route)
    app.add_middleware(RequestEnvelope, service=service, log=log)
    return app


def _route_error(request: Request, error: Exception) -> InputError:
    status = error.status_code if isinstance(error, HTTPException) else 404
    if status == 405:
        return InputError(f"this address does not take {request.method}", code="method-not-allowed")
    return InputError(
        "there is nothing at this address", code="route-unknown", hint="/openapi.json lists all addresses"
    )
