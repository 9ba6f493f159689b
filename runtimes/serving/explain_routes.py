"""The route ``POST /v1/explain``: an image in, the heat map of a class out."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from runtimes.classifier import Classifier
from runtimes.errors import InputError, quote
from runtimes.images.heat_map import MapPlace
from runtimes.images.preprocessing import decode
from runtimes.network_io import CAM, find_outputs
from runtimes.serving.body import ClientWatch, read_body
from runtimes.serving.inference_request import InferenceRequest
from runtimes.serving.model import ServedModel
from runtimes.serving.openapi import EXPLANATION, INDEX_PARAMETER, MODEL_PARAMETER, ONE_IMAGE_BODY, refusals
from runtimes.serving.query import query_of
from runtimes.serving.request_log import record_of
from runtimes.serving.service import Service

PARAMETERS = [MODEL_PARAMETER, INDEX_PARAMETER]


def add_explain_route(app: FastAPI, service: Service) -> None:
    """Add the route to an application, whose routes are direct.

    Args:
        app: The application.
        service: The models.
    """

    @app.post(
        "/v1/explain",
        summary="Heat map of a class",
        tags=["Labels"],
        responses={200: EXPLANATION, **refusals(400, 404, 408, 413, 415, 503)},
        openapi_extra={"requestBody": ONE_IMAGE_BODY, "parameters": PARAMETERS},
    )
    async def explain(request: Request) -> Response:
        arguments = query_of(request, PARAMETERS)
        served = service.model(arguments.get("model"))
        record = record_of(request.scope)
        record.model = served.name
        classifier, index = _classifier(served), _index(arguments.get("index"))
        with service.reading(served):
            body = await read_body(request, service.settings)
        record.received_bytes = len(body)
        sizes: list[tuple[int, int]] = []

        def prepare() -> InferenceRequest:
            pixels = decode(body, classifier.preprocessing.channels, service.settings.max_pixels)
            shown = body if classifier.preprocessing.scaled_decoding else pixels
            sizes.append((pixels.shape[0], pixels.shape[1]))
            return InferenceRequest("", classifier.prepare(shown, service.settings.max_pixels), {})

        with ClientWatch(request):
            _, outputs = await service.run(served, prepare)
        label, heat = classifier.interpret_map(outputs, index)
        place = MapPlace.find(classifier.preprocessing, sizes[0])
        return JSONResponse(
            {
                "model": served.name,
                "index": label,
                "name": f"class {label}" if classifier.names is None else classifier.names[label],
                "map": heat.tolist(),
                "area": place.area,
                "seen": place.seen,
            }
        )


def _index(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise InputError(f"index is {quote(text)!r}, and not the number of a class", code="index-invalid")
    return None if text is None else int(text)


def has_heat_maps(model: ServedModel) -> bool:
    """Return whether the model answers ``POST /v1/explain``."""
    return model.labels_images and CAM in find_outputs(model.runtime)


def _classifier(model: ServedModel) -> Classifier:
    if model.classifier is None or not has_heat_maps(model):
        raise InputError(
            f"model {model.name} has no heat maps",
            code="model-without-heat-maps",
            hint="rexport onnx --output logits,cam exports a model with them",
        )
    return model.classifier
