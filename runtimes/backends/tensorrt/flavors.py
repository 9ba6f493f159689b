"""TensorRT and TensorRT-RTX: two libraries with nearly one API, a row each. What differs between them stands here."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from runtimes.backends.registry import importing, missing_library
from runtimes.errors import BackendUnavailableError, Reason, UsageError, quote


@dataclass(frozen=True)
class Flavor:
    """One of the libraries.

    Attributes:
        name: as users type it and manifests record it.
        module: that Python imports.
        backend: name of the backend that opens its engines.
        extra: of rexport, that installs it.
        title: the library's own name.
        magic: the first bytes of its engines.
        least: the oldest version that this code is written for, major and minor.
    """

    name: Literal["tensorrt", "rtx"]
    module: str
    backend: str
    extra: str
    title: str
    magic: bytes
    least: tuple[int, int]

    def missing(self) -> Reason | None:
        """Why the library cannot be used, with the pip line that mends it, or ``None`` if it is installed. It is not
        imported, and a GPU is not looked for."""
        return missing_library(self.module, self.extra)

    def library(self) -> ModuleType:
        """The library, imported.

        Raises:
            BackendUnavailableError: it is not installed, cannot be imported, or is too old.
        """
        reason = self.missing()
        if reason is not None:
            raise BackendUnavailableError(f"{self.title} cannot be used here: {reason}", code="flavor-unavailable")
        with importing(self.module, self.extra):
            library = importlib.import_module(self.module)
        version = str(getattr(library, "__version__", "unknown"))
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is None or (int(found[1]), int(found[2])) < self.least:
            least = ".".join(map(str, self.least))
            raise BackendUnavailableError(
                f"{self.title} is of version {quote(version)}; at least {least} is needed",
                code="flavor-too-old",
                hint=f"pip install --upgrade 'rexport[{self.extra}]'",
            )
        return library

    def version(self) -> str:
        """The library's own version, as ``10.16.1.11``.

        Raises:
            BackendUnavailableError: as ``library``.
        """
        return str(self.library().__version__)


FLAVORS: dict[str, Flavor] = {
    row.name: row
    for row in (
        Flavor("tensorrt", "tensorrt", "tensorrt", "tensorrt", "TensorRT", b"ftrt", (10, 13)),
        Flavor("rtx", "tensorrt_rtx", "tensorrt-rtx", "tensorrt-rtx", "TensorRT-RTX", b"vtrt", (1, 5)),
    )
}
"""In the order of preference."""


def flavor(name: str) -> Flavor:
    """The row of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in FLAVORS:
        raise UsageError(
            f"no flavor {quote(name)!r} of TensorRT", code="flavor-unknown", hint=f"one of {', '.join(FLAVORS)}"
        )
    return FLAVORS[name]


def default_flavor() -> Flavor:
    """The most preferred one that is installed.

    Raises:
        BackendUnavailableError: none is; the message has the pip line of each.
    """
    reasons = []
    for row in FLAVORS.values():
        reason = row.missing()
        if reason is None:
            return row
        reasons.append(reason)
    raise BackendUnavailableError(f"no TensorRT here: {'; '.join(map(str, reasons))}", code="tensorrt-missing")


class Log:
    """What a library warned of, the last 100 messages. Safe to use from many threads."""

    def __init__(self) -> None:
        self._heard: deque[tuple[int, str, str]] = deque(maxlen=100)

    def add(self, severity: str, text: str) -> None:
        """Takes a message. ``severity`` is the library's name for it, as ``ERROR``."""
        self._heard.append((threading.get_ident(), severity, text))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The messages of warnings as the library gave them, the newest last."""
        return tuple(text for _, severity, text in tuple(self._heard) if severity == "WARNING")

    @property
    def errors(self) -> tuple[str, ...]:
        """The sentences of the errors, without codes and places in the library's source, each once, the newest last.

        A library has one log for everything that it does in a process: those of the calling thread are preferred.
        """
        return tuple(dict.fromkeys(sentence(text) for text in self._errors()))

    @property
    def out_of_memory(self) -> bool:
        """Whether one of the errors is that memory ran out."""
        return any(sign in text.lower() for text in self._errors() for sign in _MEMORY)

    def _errors(self) -> list[str]:
        heard = [(thread, text) for thread, severity, text in tuple(self._heard) if severity != "WARNING"]
        heard = [(thread, text) for thread, text in heard if not any(noise in text for noise in _NOISE)]
        own = [text for thread, text in heard if thread == threading.get_ident()]
        return own or [text for _, text in heard]

    def describe_errors(self) -> str:
        """The last errors for a message, made safe for it; what is only an echo of a missing driver comes last."""
        errors = sorted(self.errors, key=lambda text: _NO_DRIVER in text)
        return quote("; ".join(errors[:2]) or "it gave no reason")


_NOISE = ("Thread context has not been set",)
"""Errors so called that come with every build."""

_MEMORY = ("outofmemory", "out of memory", "bad_alloc")

_NO_DRIVER = "CUDA driver version is insufficient"

_SOURCE = re.compile(
    r"^.{0,80}?: Error Code \d+: (?:API Usage Error|Internal Error|Myelin|\w+) ?\("  # who met which error
    r"|^\[\S+?::\w+::\d+\] Error Code \d+: \w[\w ]*?\("
    r"|\[\w+\.(?:cpp|h|cc):\d+: \w+\] "
    r"|(?:(?<=\()|\s+)In \w+ at \S+:\d+(?=$|[ ;)])"
)
"""What stands around the sentence in the libraries' errors: the call, the error's number, places in the source."""


def sentence(text: str) -> str:
    """One of the libraries' messages without codes and places in the library's source, on one line."""
    plain, opened = _SOURCE.subn("", " ".join(text.split()))
    return plain.removesuffix(")").strip() if opened and plain.count(")") > plain.count("(") else plain.strip()


_LOGGERS: dict[int, tuple[ModuleType, Any, weakref.WeakSet[Log]]] = {}
_LOGGERS_LOCK = threading.Lock()


def logger(flavor: Flavor, heard: Log) -> object:
    """The library's logger, to be given to all that takes one; ``heard`` is told from now on, as long as it lives.

    There is one a process, which is never freed: the library keeps the first that it is given and writes into it from
    everything that is made later.

    Raises:
        BackendUnavailableError: as ``Flavor.library``.
    """
    library = flavor.library()
    with _LOGGERS_LOCK:
        if id(library) not in _LOGGERS:
            listeners: weakref.WeakSet[Log] = weakref.WeakSet()
            _LOGGERS[id(library)] = (library, _logger_class(library)(listeners), listeners)
        _, made, listeners = _LOGGERS[id(library)]
        listeners.add(heard)
    return made


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
def needing_driver(flavor: Flavor, heard: Log) -> Iterator[None]:
    """Surrounds a call of one of the library's factories, such as ``Builder(logger)``.

    Raises:
        BackendUnavailableError: it gave nothing, as it does where there is no usable driver.
    """
    try:
        yield
    except TypeError as error:  # a null pointer, in the words of the bindings
        raise BackendUnavailableError(
            f"{flavor.title} finds no usable NVIDIA driver: {heard.describe_errors()}",
            code="driver-unusable",
            hint="it wants an NVIDIA GPU and its driver; nvidia-smi shows them",
        ) from error


def compute_capabilities(flavor: Flavor) -> tuple[str, ...]:
    """Those that engines can be built for ahead of time, as ``8.6``; none where they are built for the GPU in place.

    Raises:
        BackendUnavailableError: as ``Flavor.library``.
    """
    members = getattr(flavor.library(), "ComputeCapability", None)
    if members is None:
        return ()
    return tuple(_format_capability(name) for name in members.__members__ if name.startswith("SM"))


def compute_capability(flavor: Flavor, dotted: str) -> object:
    """The library's own value for ``8.6``.

    Raises:
        UsageError: it has none; the hint has those that it has.
        BackendUnavailableError: as ``Flavor.library``.
    """
    known = compute_capabilities(flavor)
    if dotted not in known:
        raise UsageError(
            f"{flavor.title} {flavor.version()} builds no engines for compute capability {quote(dotted)}",
            code="compute-capability-unsupported",
            hint=f"one of {', '.join(known)}" if known else "leave it out: it builds for the GPU that is there",
        )
    return getattr(flavor.library().ComputeCapability, f"SM{dotted.replace('.', '')}")


def _format_capability(member: str) -> str:
    digits = member.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"
