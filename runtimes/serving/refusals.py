"""The statuses and messages of errors in HTTP and gRPC. No message holds a path of the server."""

from __future__ import annotations

from runtimes.errors import (
    CheckFailedError,
    DeviceLostError,
    InputError,
    ResourceError,
    RexportError,
    UsageError,
    quote,
)

STATUSES = {
    "activation-unclear": 500,
    "body-too-large": 413,
    "body-too-slow": 408,
    "content-encoding-unsupported": 415,
    "deadline-passed": 503,
    "image-out-of-memory": 503,
    "method-not-allowed": 405,
    "model-takes-no-images": 404,
    "model-unknown": 404,
    "model-without-heat-maps": 404,
    "model-version-unknown": 404,
    "output-not-probability": 500,
    "queue-full": 503,
    "queue-too-slow": 503,
    "route-unknown": 404,
    "too-many-bodies": 503,
}
"""The status of HTTP for the code of an error, where its class does not say it."""

GRPC_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""The name of gRPC's status code for a status of HTTP."""

CLIENT_GONE = 499
"""The status in the log of a request whose client left before the answer."""


def status_of(error: Exception) -> int:
    """Return the status of HTTP for an error."""
    if isinstance(error, MemoryError):
        return 503
    if not isinstance(error, RexportError):
        return 500
    if error.code in STATUSES:
        return STATUSES[error.code]
    if isinstance(error, DeviceLostError):
        return 500
    if isinstance(error, ResourceError):
        return 503
    if isinstance(error, CheckFailedError):
        return 500
    return 400 if isinstance(error, (InputError, UsageError)) and error.code != "runtime-closed" else 500


def code_of(error: Exception) -> str:
    """Return the stable code of an error."""
    if isinstance(error, MemoryError):
        return "out-of-memory"
    return error.code if isinstance(error, RexportError) else "internal"


def message_of(error: Exception) -> str:
    """Return the message of an answer to an error: without paths, and without anything about an error of the server."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for the request"
    if not isinstance(error, RexportError) or (status_of(error) == 500 and not isinstance(error, CheckFailedError)):
        return "internal error (the log of the server has the reason, under the id of the request)"
    return quote(error.what) + (f" ({quote(error.hint)})" if error.hint else "")
