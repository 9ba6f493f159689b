"""The two libraries, TensorRT and TensorRT-RTX, and their differences. Their APIs are nearly the same."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

from runtimes.errors import (
    BackendUnavailableError,
    Reason,
    UsageError,
    quote,
)
from runtimes.frozen_dataclass import dataclass
from runtimes.libraries import importing, missing_library


@dataclass(frozen=True)
class Flavor:
    """One of the two libraries.

    Attributes:
        name: The name that users type and manifests record.
        module: The Python module.
        backend: The name of the backend that opens the library's engines.
        extra: The extra of rexport that installs the library.
        title: The library's own name.
        magic: The first bytes of the library's engines.
        least: The oldest supported version, major and minor.
    """

    name: Literal["tensorrt", "rtx"]
    module: str
    backend: str
    extra: str
    title: str
    magic: bytes
    least: tuple[int, int]

    @property
    def measures_kernels(self) -> bool:
        """Whether a build measures kernels, so that a timing cache shortens it."""
        return self.name == "tensorrt"

    def missing(self) -> Reason | None:
        """Return why the library is not installed, with the install command, or ``None`` if it is installed.

        The library is not imported, and a GPU is not checked.
        """
        return missing_library(self.module, self.extra)

    def library(self) -> ModuleType:
        """Import the library.

        Raises:
            BackendUnavailableError: The library is not installed, cannot be imported, or is too old.
        """
        reason = self.missing()
        if reason is not None:
            raise BackendUnavailableError(f"{self.title} cannot be used here: {reason}", code="flavor-unavailable")
        with importing(self.module, self.extra):
            library = importlib.import_module(self.module)
        version = str(getattr(library, "__version__", "unknown"))
        match = re.match(r"(\d+)\.(\d+)", version)
        if match is None or (int(match[1]), int(match[2])) < self.least:
            least = ".".join(map(str, self.least))
            raise BackendUnavailableError(
                f"{self.title} {quote(version)} is installed, but at least version {least} is needed",
                code="flavor-too-old",
                hint=f"pip install --upgrade 'rexport[{self.extra}]'",
            )
        return library

    def version(self) -> str:
        """Return the version of the library, for example ``10.16.1.11``.

        Raises:
            BackendUnavailableError: As for ``library``.
        """
        return str(self.library().__version__)


FLAVORS: dict[str, Flavor] = {
    row.name: row
    for row in (
        Flavor("tensorrt", "tensorrt", "tensorrt", "tensorrt", "TensorRT", b"ftrt", (10, 13)),
        Flavor("rtx", "tensorrt_rtx", "tensorrt-rtx", "tensorrt-rtx", "TensorRT-RTX", b"vtrt", (1, 5)),
    )
}
"""The libraries by name, in order of preference."""


def flavor(name: str) -> Flavor:
    """Return the library with this name.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in FLAVORS:
        raise UsageError(
            f"unknown flavor {quote(name)!r} of TensorRT",
            code="flavor-unknown",
            hint=f"choose one of {', '.join(FLAVORS)}",
        )
    return FLAVORS[name]


def default_flavor() -> Flavor:
    """Return the most preferred library that is installed.

    Raises:
        BackendUnavailableError: Neither is installed. The message holds the install commands.
    """
    reasons = []
    for row in FLAVORS.values():
        reason = row.missing()
        if reason is None:
            return row
        reasons.append(reason)
    raise BackendUnavailableError(f"TensorRT is not installed: {'; '.join(map(str, reasons))}", code="tensorrt-missing")


class Log:
    """The last 100 errors and warnings of a library. All methods may be called from many threads at once."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, str, str]] = deque(maxlen=100)

    def add(self, severity: str, text: str) -> None:
        """Add a message with the library's name of its severity, for example ``ERROR``, and its text."""
        self._messages.append((threading.get_ident(), severity, text))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the warnings, unchanged, newest last."""
        return tuple(text for _, severity, text in tuple(self._messages) if severity == "WARNING")

    @property
    def errors(self) -> tuple[str, ...]:
        """The different errors, without codes and source locations, newest last.

        A library has one log in a process. If there are errors of the calling thread, errors of other threads are left
        out.
        """
        return tuple(dict.fromkeys(sentence(text) for text in self._errors()))

    @property
    def out_of_memory(self) -> bool:
        """Whether one of the errors says that memory is lacking."""
        return any(phrase in text.lower() for text in self._errors() for phrase in _OUT_OF_MEMORY)

    def _errors(self) -> list[str]:
        errors = [
            (thread, text)
            for thread, severity, text in tuple(self._messages)
            if severity != "WARNING" and not any(phrase in text for phrase in _HARMLESS)
        ]
        own = [text for thread, text in errors if thread == threading.get_ident()]
        return own or [text for _, text in errors]

    def describe_errors(self) -> str:
        """Return the first two errors as text for a message. Errors that follow from a missing driver come last."""
        errors = sorted(self.errors, key=lambda text: _NO_DRIVER in text)
        return quote("; ".join(errors[:2]) or "the library gave no reason")


_HARMLESS = ("Thread context has not been set",)
"""Phrases of errors that the library reports in every build."""

_OUT_OF_MEMORY = ("outofmemory", "out of memory", "bad_alloc")

_NO_DRIVER = "CUDA driver version is insufficient"

_SOURCE = re.compile(
    r"^.{0,80}?: Error Code \d+: (?:API Usage Error|Internal Error|Myelin|\w+) ?\("  # component and error code
    r"|^\[\S+?::\w+::\d+\] Error Code \d+: \w[\w ]*?\("
    r"|\[\w+\.(?:cpp|h|cc):\d+: \w+\] "
    r"|(?:(?<=\()|\s+)In \w+ at \S+:\d+(?=$|[ ;)])"
)
"""The parts around the sentence in a library's error: the call, the error code, and source locations."""


def sentence(text: str) -> str:
    """Return a message of a library on one line, without error codes and source locations."""
    plain, opened = _SOURCE.subn("", " ".join(text.split()))
    return plain.removesuffix(")").strip() if opened and plain.count(")") > plain.count("(") else plain.strip()


_LOGGERS: dict[int, tuple[ModuleType, Any, weakref.WeakSet[Log]]] = {}
_LOGGERS_LOCK = threading.Lock()


def logger(flavor: Flavor, log: Log) -> object:
    """Return the logger for all objects of a library, which adds messages to ``log`` from now on.

    There is one logger for each library in a process, and it is never freed: the library keeps the first logger it
    receives and uses it for all later objects. The logger does not keep ``log`` alive.

    Args:
        flavor: The library.
        log: Receives the messages.

    Raises:
        BackendUnavailableError: As for ``Flavor.library``.
    """
    library = flavor.library()
    with _LOGGERS_LOCK:
        if id(library) not in _LOGGERS:
            listeners: weakref.WeakSet[Log] = weakref.WeakSet()
            _LOGGERS[id(library)] = (library, _logger_class(library)(listeners), listeners)
        _, library_logger, listeners = _LOGGERS[id(library)]
        listeners.add(log)
    return library_logger


def _logger_class(library: ModuleType) -> type[Any]:
    class Logger(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self, listeners: weakref.WeakSet[Log]) -> None:
            library.ILogger.__init__(self)
            self._listeners = listeners

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                for listener in tuple(self._listeners):
                    listener.add(severity.name, msg)

    return Logger


@contextlib.contextmanager
def needing_driver(flavor: Flavor, log: Log) -> Iterator[None]:
    """Translate the error of a library's factory, such as ``Builder(logger)``, in the ``with`` block.

    Args:
        flavor: The library.
        log: The messages of the library.

    Raises:
        BackendUnavailableError: The factory created nothing, which means that there is no usable driver.
    """
    try:
        yield
    except TypeError as error:  # the bindings raise it for a null pointer
        raise BackendUnavailableError(
            f"{flavor.title} finds no usable NVIDIA driver: {log.describe_errors()}",
            code="driver-unusable",
            hint="install an NVIDIA GPU and its driver, and check them with nvidia-smi",
        ) from error


def compute_capabilities(flavor: Flavor) -> tuple[str, ...]:
    """Return the compute capabilities that a library can build for, or none if it builds only for the present GPU.

    Raises:
        BackendUnavailableError: As for ``Flavor.library``.
    """
    members = getattr(flavor.library(), "ComputeCapability", None)
    if members is None:
        return ()
    return tuple(_format_capability(name) for name in members.__members__ if name.startswith("SM"))


def compute_capability(flavor: Flavor, dotted: str) -> object:
    """Return the library's own value for a compute capability.

    Args:
        flavor: The library.
        dotted: The compute capability, for example ``8.6``.

    Raises:
        UsageError: The library does not support it. The hint lists the supported ones.
        BackendUnavailableError: As for ``Flavor.library``.
    """
    known = compute_capabilities(flavor)
    if dotted not in known:
        raise UsageError(
            f"{flavor.title} {flavor.version()} cannot build engines for compute capability {quote(dotted)}",
            code="compute-capability-unsupported",
            hint=f"choose one of {', '.join(known)}" if known else "omit it to build for the present GPU",
        )
    return getattr(flavor.library().ComputeCapability, f"SM{dotted.replace('.', '')}")


def _format_capability(member: str) -> str:
    digits = member.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"
