"""A connection to a server that speaks the Open Inference Protocol (V2) over HTTP or gRPC, as Triton and KServe do.

Importing this module imports neither NumPy nor the client's library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from runtimes.errors import (
    BackendUnavailableError,
    CheckFailedError,
    ModelMismatchError,
    ResourceError,
    RexportError,
    UsageError,
    quote,
)
from runtimes.libraries import importing, missing_library
from runtimes.tensors.spec import Arrays, Feeds, TensorSpec

EXTRA = "triton"
"""The extra of the package ``rexport`` that installs the client's library."""

TIMEOUT_S = 30.0
"""The longest wait for one answer, by default."""

BYTES = "BYTES"
"""The protocol's data type of byte strings. An array of it has the dtype ``object`` and holds ``bytes``."""

DATATYPES = {
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BOOL": "bool", BYTES: "object",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
}  # fmt: skip
"""The data types of the protocol, with NumPy's names."""

_MISSING = ("404", "StatusCode.NOT_FOUND")
_NOT_IMPLEMENTED = (*_MISSING, "405", "501", "StatusCode.UNIMPLEMENTED")
_UNREACHABLE = ("503", "StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
_OVERLOADED = ("429", "StatusCode.RESOURCE_EXHAUSTED")
_LATE = ("504", "499", "StatusCode.DEADLINE_EXCEEDED")


@dataclass(frozen=True)
class RemoteModel:
    """The description of a model, as its server gives it.

    Attributes:
        name: The name of the model.
        versions: The versions that the server offers, or none where it has no versions.
        platform: The server's name for what runs the model.
        inputs: The inputs. A dimension that may vary is called ``dim0``, ``dim1`` and so on.
        outputs: The outputs, described in the same way.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ServedConfiguration:
    """The part of a model's configuration that Triton reports and rexport uses.

    Attributes:
        largest_batch: The largest batch of a request, or 0 for a model whose batch is fixed.
        parameters: The parameters of the model by name.
    """

    largest_batch: int
    parameters: Mapping[str, str]


class ServerConnection:
    """A connection to a server of the Open Inference Protocol (V2).

    Only one thread at a time may use a connection; several threads open one each. A ``with`` statement closes it.

    Args:
        url: The address: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, a host and a port. Without a port, it
            is Triton's: 8000 for HTTP, 8001 for gRPC. HTTP addresses may have a path.
        timeout_s: The longest wait for one answer, in seconds.

    Raises:
        UsageError: The address is invalid.
        BackendUnavailableError: The library of the client is not installed. Whether there is a server shows in the
            first call.

    Example:
        Send one image of zeros:

            with ServerConnection("grpc://127.0.0.1:8001") as server:
                logits = server.infer("resnet20", {"input": numpy.zeros((1, 1, 28, 28), "float32")})["logits"]
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self.timeout_s = timeout_s
        address = _split(url)
        missing = missing_library("tritonclient", EXTRA)
        if missing is not None:
            raise BackendUnavailableError(str(missing), code=missing.code)
        self._http = address.scheme in ("http", "https")
        with importing("tritonclient", EXTRA):
            self._library = importlib.import_module("tritonclient.http" if self._http else "tritonclient.grpc")
            self._failures = _transport_failures(self._http)
        self._client = self._connect(address)

    def _connect(self, address: SplitResult) -> Any:
        host, port = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname, address.port
        secure = address.scheme in ("https", "grpcs")
        if not self._http:
            return self._library.InferenceServerClient(f"{host}:{port or 8001}", ssl=secure)
        options: dict[str, Any] = {"connection_timeout": self.timeout_s, "network_timeout": self.timeout_s}
        if secure:
            gevent_ssl = importlib.import_module("gevent.ssl")
            options |= {"ssl": True, "ssl_context_factory": gevent_ssl.create_default_context}
        default = 443 if secure else 8000
        return self._library.InferenceServerClient(f"{host}:{port or default}{address.path.rstrip('/')}", **options)

    def server(self) -> str:
        """Return the server's name and version, for example ``triton 2.51.0``.

        Raises:
            BackendUnavailableError: Nothing answers at the address.
            ModelMismatchError: The server at the address speaks another protocol.
            RexportError: As for ``infer``.
        """
        with self._translate("the Open Inference Protocol"):
            found = self._call(self._client.get_server_metadata)
            return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()

    def is_ready(self, model: str = "", version: str = "") -> bool:
        """Return whether the server is ready; with a model, whether this model is.

        Args:
            model: The name of the model, or an empty text for the server as a whole.
            version: The version, or an empty text for the server's choice.

        Raises:
            BackendUnavailableError: Nothing answers at the address.
        """
        options = {} if self._http else {"client_timeout": self.timeout_s}
        with self._translate(model or "the server"):
            if model:
                return bool(self._client.is_model_ready(model, version, **options))
            return bool(self._client.is_server_ready(**options))

    def models(self) -> tuple[str, ...] | None:
        """Return the names of the models, or ``None`` if the server does not list them. The list is Triton's extension.

        Raises:
            RexportError: As for ``infer``.
        """
        found = self._optional("the list of models", self._client.get_model_repository_index)
        if found is None:
            return None
        rows = found.get("models", []) if isinstance(found, dict) else found
        return tuple(sorted({str(row["name"]) for row in rows}))

    def model(self, name: str, version: str = "") -> RemoteModel:
        """Return the description of a model.

        Args:
            name: The name of the model.
            version: The version, or an empty text for the server's choice.

        Raises:
            ModelMismatchError: The server has no such model or version.
            RexportError: As for ``infer``.
        """
        with self._translate(name, version):
            found = self._call(self._client.get_model_metadata, name, version)
            return RemoteModel(
                str(found["name"]),
                tuple(map(str, found.get("versions", ()))),
                str(found.get("platform", "")),
                tuple(map(_spec, found["inputs"])),
                tuple(map(_spec, found["outputs"])),
            )

    def configuration(self, name: str, version: str = "") -> ServedConfiguration | None:
        """Return the configuration of a model, or ``None`` if the server reports none: it is Triton's extension.

        Args:
            name: As for ``model``.
            version: As for ``model``.

        Raises:
            RexportError: As for ``infer``.
        """
        found = self._optional(name, self._client.get_model_config, name, version)
        if found is None:
            return None
        found = found.get("config", found)
        parameters = {key: str(value.get("string_value", "")) for key, value in found.get("parameters", {}).items()}
        return ServedConfiguration(int(found.get("max_batch_size", 0)), parameters)

    def infer(self, model: str, feeds: Feeds, version: str = "", outputs: Iterable[str] | None = None) -> Arrays:
        """Send one request and wait for its answer.

        Args:
            model: The name of the model.
            feeds: The input arrays by name. Byte strings are an array of the dtype ``object`` that holds ``bytes``.
            version: The version, or an empty text for the server's choice.
            outputs: The names of the outputs, or ``None`` for all.

        Returns:
            The outputs by name. The arrays are fresh, and may be read-only.

        Raises:
            BackendUnavailableError: Nothing answers at the address, or not within the time.
            ModelMismatchError: The server has no such model or version.
            ResourceError: The server has too many requests in its queue.
            CheckFailedError: The server refused the request, or its answer cannot be read.
        """
        options: dict[str, Any] = {"model_version": version}
        if not self._http:
            options["client_timeout"] = self.timeout_s
        if outputs is not None:
            options["outputs"] = [self._library.InferRequestedOutput(name) for name in outputs]
        with self._translate(model, version):
            answer = self._client.infer(model, [self._input(name, feeds[name]) for name in feeds], **options)
            names = [str(row["name"]) for row in self._response(answer)["outputs"]]
            return {name: answer.as_numpy(name) for name in names}

    def _input(self, name: str, array: Any) -> Any:
        import numpy as np

        array = np.ascontiguousarray(array)
        kind = next((each for each, dtype in DATATYPES.items() if dtype == array.dtype.name), BYTES)
        entry = self._library.InferInput(name, list(array.shape), kind)
        entry.set_data_from_numpy(array)
        return entry

    def _response(self, answer: Any) -> Any:
        return answer.get_response() if self._http else answer.get_response(as_json=True)

    def _call(self, method: Callable[..., Any], *arguments: str) -> Any:
        return method(*arguments) if self._http else method(*arguments, as_json=True, client_timeout=self.timeout_s)

    def _optional(self, what: str, method: Callable[..., Any], *arguments: str) -> Any:
        """Return the answer to a question of an extension, or ``None`` from a server without this extension."""
        try:
            with self._translate(what):
                return self._call(method, *arguments)
        except ModelMismatchError:
            return None

    @contextmanager
    def _translate(self, what: str, version: str = "") -> Iterator[None]:
        """Translate the client's exceptions. ``what`` is the model, or what was asked for, as for the message."""
        try:
            yield
        except self._failures as error:
            raise self._refusal(error, what, version) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # JSON of another kind than the protocol's
            raise self._unreadable(error) from error

    def _refusal(self, error: Exception, what: str, version: str) -> RexportError:
        status = str(getattr(error, "status", lambda: None)() or "")
        message = getattr(error, "message", lambda: None)() or f"{type(error).__name__} {error}".strip()
        if isinstance(error, TimeoutError) or status in _LATE:
            return BackendUnavailableError(
                f"{self.url} did not answer within {self.timeout_s:g} s",
                code="server-timeout",
                hint="--timeout waits longer",
            )
        if isinstance(error, OSError) or not status or status in _UNREACHABLE:
            return BackendUnavailableError(
                f"no server answers at {self.url}: {quote(message)}",
                code="server-unreachable",
                hint="start the server, or correct the address",
            )
        if status in _OVERLOADED:
            return ResourceError(f"{self.url} has too many requests: {quote(message)}", code="server-overloaded")
        if status in _NOT_IMPLEMENTED or "unknown model" in message:
            offered = f"{what} version {version}" if version else what
            return ModelMismatchError(
                f"{self.url} does not offer {offered}: {quote(message)}",
                code="model-not-served",
                hint="choose another model or version, or correct the address",
            )
        return CheckFailedError(f"{self.url} refused the request: {quote(message)}", code="request-refused")

    def _unreadable(self, error: Exception) -> CheckFailedError:
        return CheckFailedError(
            f"the answer of {self.url} is not of the Open Inference Protocol: {type(error).__name__} {quote(error)}",
            code="answer-unreadable",
            hint="name the address of a server such as Triton; its HTTP port is usually 8000, its gRPC port 8001",
        )

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._client.close()

    def __enter__(self) -> ServerConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _split(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        valid = bool(address.hostname) and (address.port is None or address.port > 0) and "//" not in address.path
    except ValueError:
        valid = False
    if not valid or address.scheme not in ("http", "https", "grpc", "grpcs") or address.query or address.fragment:
        raise UsageError(
            f"{quote(url)!r} is not the address of a server",
            code="url-invalid",
            hint="for example http://127.0.0.1:8000 or grpc://127.0.0.1:8001",
        )
    if "@" in address.netloc:
        raise UsageError(
            "the address of a server must not hold a user or a password",
            code="url-with-user",
            hint="the protocol has no authentication; a proxy may ask for one",
        )
    if address.path.strip("/") and address.scheme.startswith("grpc"):
        raise UsageError(f"{quote(url)!r} has a path, which gRPC does not know", code="url-with-path", hint="omit it")
    return address


def _transport_failures(http: bool) -> tuple[type[Exception], ...]:
    """Return the exceptions of the client's library for whatever a server or the network does."""
    failure = importlib.import_module("tritonclient.utils").InferenceServerException
    if not http:
        return (failure,)
    return failure, OSError, RuntimeError, importlib.import_module("geventhttpclient.response").HTTPParseError


def _spec(row: Mapping[str, Any]) -> TensorSpec:
    sizes = [int(size) for size in row["shape"]]
    shape = tuple(size if size >= 0 else f"dim{axis}" for axis, size in enumerate(sizes))
    return TensorSpec(str(row["name"]), DATATYPES[str(row["datatype"])], shape)
