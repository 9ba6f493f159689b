"""The route ``POST /v1/label``: images in, labels out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse, Response

from runtimes.class_outputs import Prediction
from runtimes.classifier import Classifier
from runtimes.errors import InputError, quote
from runtimes.serving.body import ClientWatch, read_body
from runtimes.serving.inference_request import InferenceRequest
from runtimes.serving.model import ServedModel
from runtimes.serving.openapi import IMAGE_BODY, LABELS, MAX_TOP, MODEL_PARAMETER, TOP_PARAMETER, refusals
from runtimes.serving.query import query_of
from runtimes.serving.request_log import record_of
from runtimes.serving.service import Service
from runtimes.serving.sole_client import connection_of

MULTIPART = "multipart/form-data"
PARAMETERS = [MODEL_PARAMETER, TOP_PARAMETER]


def add_label_route(app: FastAPI, service: Service) -> None:
    """Add the route to an application, whose routes are direct.

    Args:
        app: The application.
        service: The models.
    """

    @app.post(
        "/v1/label",
        summary="Labels of images",
        tags=["Labels"],
        responses={200: LABELS, **refusals(400, 404, 408, 413, 415, 503)},
        openapi_extra={"requestBody": IMAGE_BODY, "parameters": PARAMETERS},
    )
    async def label(request: Request) -> Response:
        arguments = query_of(request, PARAMETERS)
        served = service.model(arguments.get("model"))
        record = record_of(request.scope)
        record.model = served.name
        labeller = _Labeller(service, served, _classifier(served), _top(arguments.get("top", "1")))
        with service.reading(served):
            body = await read_body(request, service.settings)
        record.received_bytes = len(body)
        images = await _images(request, body, service.settings.max_images)
        with ClientWatch(request):
            if len(images) == 1:
                predictions = [await labeller.predict(images[0], connection_of(request, body))]
            else:
                predictions = await labeller.predict_all(images)
        return JSONResponse({"model": served.name, "images": [_as_json(prediction) for prediction in predictions]})


def _top(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_TOP):
        raise InputError(f"top is {quote(text)!r}, and not a number from 1 to {MAX_TOP}", code="top-out-of-range")
    return int(text)


def _classifier(model: ServedModel) -> Classifier:
    if model.classifier is None or not model.labels_images:
        raise InputError(
            f"model {model.name} does not label images",
            code="model-takes-no-images",
            hint=f"send tensors to /v2/models/{model.name}/infer",
        )
    return model.classifier


@dataclass(frozen=True)
class _Labeller:
    """A model with the number of labels that a request asks for."""

    service: Service
    model: ServedModel
    classifier: Classifier
    top: int

    async def predict(self, image: bytes, connection: object = None) -> Prediction:
        """Return the prediction of an image. ``connection`` is as for ``Service.run``."""

        def prepare() -> InferenceRequest:
            return InferenceRequest("", self.classifier.prepare(image, self.service.settings.max_pixels), {})

        _, outputs = await self.service.run(self.model, prepare, connection)
        return self.classifier.interpret(outputs, self.top)[0]

    async def predict_all(self, images: list[bytes]) -> list[Prediction]:
        """Return the prediction of each image. Each has a place of its own in the queue."""
        tasks: list[asyncio.Task[Prediction]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for image in images:
                    tasks.append(group.create_task(self.predict(image)))
        except BaseExceptionGroup as errors:
            first = next((number, task.exception()) for number, task in enumerate(tasks) if _has_failed(task))
            raise _with_number(*first) from errors
        return [task.result() for task in tasks]


def _has_failed(task: asyncio.Task[Prediction]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _with_number(number: int, error: BaseException | None) -> BaseException:
    """Return the error of one of several images, with the number of the image."""
    if isinstance(error, InputError):
        return InputError(f"image {number}: {error.what}", code=error.code, hint=error.hint)
    return error or RuntimeError("no task has failed")


def _as_json(prediction: Prediction) -> dict[str, object]:
    labels = [
        {"name": label.name, "index": label.index, "probability": label.probability} for label in prediction.labels
    ]
    return {"labels": labels}


async def _images(request: Request, body: bytes, most: int) -> list[bytes]:
    """Return the content of each image file in a body: the body itself, or the files of a form."""
    if not request.headers.get("content-type", "").lower().startswith(MULTIPART):
        return [body]

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=most, max_fields=0)
    parser.spool_max_size = len(body) + 1  # what is in memory already needs no file on the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise InputError(
            f"the form is not valid, or has more than {most} files or other fields: {quote(error)}",
            code="form-invalid",
        ) from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise InputError("the form has no file", code="form-empty", hint="curl -F image=@photo.jpg sends one")
    try:
        return [await file.read() for file in files]
    finally:
        await form.close()
