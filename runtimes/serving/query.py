"""The query parameters of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from runtimes.errors import InputError, quote


def query_of(request: Request, parameters: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the query parameters of a request by their names.

    Args:
        request: The request.
        parameters: The descriptions of those that the route takes, as ``runtimes.serving.openapi`` has them.

    Raises:
        InputError: The route takes no parameter of this name, or one is there twice.
    """
    known = [parameter["name"] for parameter in parameters]
    arguments: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise InputError(
                f"unknown query parameter {quote(name)!r}",
                code="query-parameter-unknown",
                hint=f"the query parameters of {request.url.path} are {', '.join(known)}",
            )
        if name in arguments:
            raise InputError(f"the query parameter {name} is there twice", code="query-parameter-repeated")
        arguments[name] = value
    return arguments
