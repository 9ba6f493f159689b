"""The page of a server at ``/``: a visitor labels images with the server's models."""

from __future__ import annotations

import json

from fastapi import FastAPI, Request
from starlette.responses import Response

from runtimes.errors import InputError
from runtimes.serving.explain_routes import has_heat_maps
from runtimes.serving.model import ServedModel
from runtimes.serving.page_markup import FOLDER, STYLE, content_policy, data_element, page_markup
from runtimes.serving.service import Service

SCRIPT = "served.js"
"""The module of the page that asks the server."""

MEDIA_TYPES = {STYLE: "text/css", "heat.js": "text/javascript", "view.js": "text/javascript", SCRIPT: "text/javascript"}
"""The files of the page, with their media types. No other file is sent."""

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": content_policy("'self'", "'self'", "'self'") + "; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The headers of the page and its files."""


def add_pages(app: FastAPI, service: Service, version: str) -> None:
    """Add the page and its files to an application, whose routes are direct.

    Args:
        app: The application.
        service: The models.
        version: The version of rexport.
    """
    files = {name: (FOLDER / name).read_bytes() for name in MEDIA_TYPES}
    page = _page(list(service.models.values()), version)

    @app.get("/", include_in_schema=False)
    async def show_page(request: Request) -> Response:  # noqa: ARG001
        return Response(page, media_type="text/html", headers=HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    async def send_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise InputError("there is nothing at this address", code="route-unknown", hint="/ is the page")
        return Response(files[name], media_type=MEDIA_TYPES[name], headers=HEADERS)


def _page(models: list[ServedModel], version: str) -> str:
    """Return the markup of the page. Addresses are relative, so that the page can be mounted below any path."""
    labelling = [model for model in models if model.labels_images]
    description = json.dumps([_description(model) for model in labelling])
    words = {
        "title": labelling[0].name if len(labelling) == 1 else "Image labels",
        "about": "Image labels by a server of rexport." if labelling else "No model of this server labels images.",
        "privacy": f"Images are sent to this server, which does not keep them. Served by rexport {version}.",
    }
    return page_markup(
        words,
        policy=content_policy("'self'", "'self'", "'self'"),
        style=f'<link rel="stylesheet" href="page/{STYLE}">',
        notice="",
        scripts=f'{data_element("models", description)}\n<script type="module" src="page/{SCRIPT}"></script>',
    )


def _description(model: ServedModel) -> dict[str, object]:
    manifest = model.runtime.artifact.manifest
    facts = [] if manifest is None else [manifest.precision, *([manifest.dataset] if manifest.dataset else [])]
    if manifest is not None and not manifest.weights.trained:
        facts.append("untrained weights: the labels mean nothing")
    return {"name": model.name, "facts": ", ".join(facts), "heat": has_heat_maps(model)}
