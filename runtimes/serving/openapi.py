"""The bodies and refusals in the description of the server (OpenAPI)."""

from __future__ import annotations

from typing import Any

from runtimes.serving.datatypes import DTYPES

MAX_TOP = 1000
"""The number of labels of an image that a request may ask for, at most."""

_TEXTS = {
    400: "The request is wrong.",
    404: "There is no such model, or it does not take images.",
    405: "The method is wrong.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    415: "The body is compressed.",
    503: "The server is busy or about to stop. Retry-After says when to try again.",
}

_ERROR = {
    "type": "object",
    "required": ["error", "code", "request_id"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}, "request_id": {"type": "string"}},
}

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": list(DTYPES)},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}

TENSOR_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {"type": "object"},
                    "inputs": {"type": "array", "items": _TENSOR},
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                        },
                    },
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
"""The body of a request for inference: JSON, or JSON and the bytes of tensors behind it."""

INFERENCE: dict[str, Any] = {
    "description": "The outputs of the network.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model_name", "outputs"],
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "id": {"type": "string"},
                    "outputs": {"type": "array", "items": _TENSOR},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}

IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
"""The body of a request for labels: the content of one image file, or a form with several."""

ONE_IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}
"""The body of a request for a heat map: the content of one image file."""

_EDGES = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}

EXPLANATION: dict[str, Any] = {
    "description": "The heat map of a class, and its place on the image: the area of its cells, and the part that the "
    "network saw, each as top, left, bottom and right in shares of the image's height and width.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model", "index", "name", "map", "area", "seen"],
                "properties": {
                    "model": {"type": "string"},
                    "index": {"type": "integer"},
                    "name": {"type": "string"},
                    "map": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                    "area": _EDGES,
                    "seen": _EDGES,
                },
            }
        }
    },
}

LABELS: dict[str, Any] = {
    "description": "The most probable classes of each image, in the order of the images.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model", "images"],
                "properties": {
                    "model": {"type": "string"},
                    "images": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["labels"],
                            "properties": {
                                "labels": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["name", "index", "probability"],
                                        "properties": {
                                            "name": {"type": "string"},
                                            "index": {"type": "integer"},
                                            "probability": {"type": "number"},
                                        },
                                    },
                                }
                            },
                        },
                    },
                },
            }
        }
    },
}


_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}

NAME_PARAMETER: dict[str, Any] = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": _NAME,
    "description": "Name of the model.",
}
VERSION_PARAMETER: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Version of the model, which is 1.",
}
MODEL_PARAMETER: dict[str, Any] = {
    "name": "model",
    "in": "query",
    "schema": _NAME,
    "description": "Name of the model, if there are several.",
}
TOP_PARAMETER: dict[str, Any] = {
    "name": "top",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TOP, "default": 1},
    "description": "Number of labels of each image, best first.",
}
INDEX_PARAMETER: dict[str, Any] = {
    "name": "index",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    "description": "Number of the class, by default that of the most probable one.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of the answers with these statuses."""
    return {
        status: {"description": _TEXTS[status], "content": {"application/json": {"schema": _ERROR}}}
        for status in statuses
    }
