"""``SoleClient``: whether one client alone has sent requests lately, so that nobody else waits for its answers."""

from __future__ import annotations

from starlette.requests import Request

SOLE_S = 0.1
"""The seconds for which all requests must have come from one connection."""

BRIEF_BYTES = 64 << 10
"""The size in bytes up to which a body is decoded in a short time. The pixels of an image are limited apart from it."""


def connection_of(request: Request, body: bytes) -> object:
    """Return what tells the connection of a request from others, or ``None``.

    The requests of one connection come one after another in the first version of HTTP, but not in later ones.

    Args:
        request: The request.
        body: Its body. That of more than ``BRIEF_BYTES`` gives ``None``.
    """
    first_version = str(request.scope.get("http_version", "")).startswith("1")
    return request.scope.get("client") if first_version and len(body) <= BRIEF_BYTES else None


class SoleClient:
    """The connection that sends requests, and since when no other one did."""

    def __init__(self) -> None:
        self._connection: object = None
        self._since_s = 0.0

    def is_sole(self, connection: object, now_s: float) -> bool:
        """Take note of a request, and return whether those of the last ``SOLE_S`` all came from its connection.

        Args:
            connection: The connection of the request, or ``None`` if it may send several at once.
            now_s: The time now.
        """
        if connection != self._connection:
            self._connection, self._since_s = connection, now_s
        return connection is not None and now_s - self._since_s > SOLE_S
