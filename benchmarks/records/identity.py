"""The identity of a result, its reference, the latest result of each configuration, and the names of its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from exporter.format import count
from runtimes.errors import Reason

if TYPE_CHECKING:  # the fields are options of ``rbench compare``, and its help must not import heavy libraries
    from benchmarks.records.result import Baseline, Result

Value: TypeAlias = str | int | float | bool | tuple[object, ...] | None


@dataclass(frozen=True)
class Field:
    """A property of results that two compared results must share.

    Attributes:
        name: The name of the property on the command line.
        of: Returns the property of a result.
        names: Whether the property is part of the configuration. Other properties are conditions of the measurement,
            and two results of one configuration must agree in them.
        text: Returns a value as text.
    """

    name: str
    of: Callable[[Result], Value]
    names: bool
    text: Callable[[Value], str] = str


def load_value(result: Result) -> Value:
    """Return the shape and number of clients of the load, or ``None`` without a load."""
    return None if result.load is None else (result.load.shape, result.load.clients)


def format_load_value(value: Value) -> str:
    """Return the value of ``load_value`` in a few words."""
    if not isinstance(value, tuple):
        return "none"
    shape, clients = value
    return count(int(str(clients)), "client") if shape == "clients" else str(shape)


def format_at_once(value: Value) -> str:
    """Return the devices that worked at the same time in a few words."""
    return " and ".join(map(str, value)) if isinstance(value, tuple) else "no other device"


def _rate(result: Result) -> Value:
    """Return the rate that was requested. A rate derived from the machine's own speed counts by its share of it."""
    if result.load is None:
        return None
    share = result.load.rate_share
    return result.load.rate_per_s if share is None else f"{share:.0%} of single-stream's"


def _machine(result: Result) -> Value:
    """Return the processor. The GPU is added for a result of a GPU."""
    environment, before = result.environment, result.gpu.before
    gpu = before.name if before is not None else " and ".join(gpu.name for gpu in environment.gpus)
    return " with ".join(filter(None, (environment.cpu, gpu if result.asked.cuda_graphs is not None else "")))


FIELDS: tuple[Field, ...] = (
    Field("subject", lambda result: result.identity.subject or result.identity.artifact, names=True),
    Field("file", lambda result: result.identity.file, names=True),
    Field("runtime", lambda result: result.identity.backend, names=True),
    Field("precision", lambda result: result.identity.precision, names=True),
    Field("batch", lambda result: result.identity.batch, names=True),
    Field("cuda-graphs", lambda result: result.asked.cuda_graphs, names=True),
    Field("load", load_value, names=True, text=format_load_value),
    Field("at-once", lambda result: result.asked.at_once or None, names=True, text=format_at_once),
    Field("sha256", lambda result: result.identity.sha256, names=False, text=lambda value: str(value)[:12]),
    Field("threads", lambda result: result.ran.threads, names=False),
    Field("device", lambda result: result.ran.device, names=False),
    Field("machine", _machine, names=False),
    Field("rate", _rate, names=False),
)
"""The properties that identify a row. Rows are compared if all of them agree.

``rbench compare --across NAME`` allows the named property to differ.
"""


NOT_REACHED = Reason("not-reached", "not reached: the run ended early")
"""The reason why a planned configuration has no figures."""


def latest(results: Sequence[Result]) -> tuple[Result, ...]:
    """Return the latest results of each requested configuration, in their original order.

    For each configuration these are the results of the last run that reached it. If no run reached it, they are the
    results of the last run.
    """
    runs: dict[tuple[Value, ...], tuple[bool, str, str]] = {}
    for result in results:
        key = _identify_request(result)
        reached = result.reason is None or result.reason.code != NOT_REACHED.code
        runs[key] = max(runs.get(key, (False, "", "")), (reached, result.time, result.run))
    return tuple(result for result in results if runs[_identify_request(result)][2] == result.run)


def _identify_request(result: Result) -> tuple[Value, ...]:
    configuration = (field.of(result) for field in FIELDS if field.names)
    threads = result.asked.threads or result.ran.threads
    return (*configuration, threads, _device(result), _machine(result), _rate(result))


def configuration(result: Result, across: Collection[str] = ()) -> tuple[Value, ...]:
    """Return the properties that name the configuration of a result, with its threads and device.

    A run may hold several results of one configuration: ``rbench tune`` measures its best configuration again.

    Args:
        result: The result.
        across: The names of properties to leave out.
    """
    kept = (field for field in FIELDS if field.names or field.name in ("threads", "device"))
    return tuple(field.of(result) for field in kept if field.name not in across)


class References:
    """The results that others may be compared with. Those of one result are found without a look at all others.

    Args:
        results: The results.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._by_subject: dict[tuple[str, str | None], list[Result]] = {}
        for result in results:
            if result.status == "ok" and is_reference(result):
                self._by_subject.setdefault((result.run, result.identity.subject), []).append(result)

    def of(self, result: Result) -> Sequence[Result]:
        """Return the references of the same run and subject, in their order."""
        return self._by_subject.get((result.run, result.identity.subject), ())


def find_timed_reference(result: Result, among: Sequence[Result] | References) -> Result | None:
    """Return the reference for the latency of a result, or ``None``.

    The reference is a result ``among`` the given ones of the same run, subject and batch. A reference that took turns
    with the result is preferred.
    """
    batch, group = result.identity.batch, result.asked.group
    where = _device(result), result.asked.at_once
    timed = [
        other
        for other in _references(result, among)
        if other.samples and other.identity.batch == batch and (_device(other), other.asked.at_once) == where
    ]
    return next((other for other in timed if other.asked.group == group), timed[0]) if timed else None


def find_evaluated_reference(result: Result, among: Sequence[Result] | References) -> Result | None:
    """Return the reference for the predictions of a result, or ``None``.

    The reference is the first result with predictions ``among`` the given ones of the same run and subject, of any
    batch.
    """
    return next((other for other in _references(result, among) if other.predictions is not None), None)


def _references(result: Result, among: Sequence[Result] | References) -> Sequence[Result]:
    return (among if isinstance(among, References) else References(among)).of(result)


def baseline_of(result: Result) -> Baseline:
    """Return the baseline of a result: the recorded one, or PyTorch in fp32 if none was recorded."""
    from benchmarks.records import request
    from benchmarks.records.result import Baseline

    return result.asked.baseline or Baseline(request.REFERENCE, request.FP32)


def is_reference(result: Result) -> bool:
    """Return whether a result is a result of its own baseline."""
    identity, baseline = result.identity, baseline_of(result)
    return (identity.backend, identity.precision, identity.file) == (
        baseline.backend,
        baseline.precision,
        baseline.file,
    )


def describe_baseline(result: Result) -> str:
    """Return the baseline of a result in a few words."""
    baseline = baseline_of(result)
    return " ".join(filter(None, (baseline.backend, baseline.precision, baseline.file)))


def locate(result: Result) -> tuple[str, ...]:
    """Return the names of the processor, the GPUs and the requested device of a result.

    The device is all devices that worked at the same time, if there were others.
    """
    machine = result.environment
    device = ",".join(result.asked.at_once) or _device(result)
    return (machine.cpu, *(gpu.name for gpu in machine.gpus), device)


def _device(result: Result) -> str:
    return result.asked.device or result.ran.device


def weights_of(result: Result) -> str:
    """Return the weights in words. Untrained weights are always marked."""
    identity = result.identity
    network, weights = identity.variant, identity.weights
    if identity.trained is None:
        return f"{network}, model without a manifest" if network != identity.artifact else "model without a manifest"
    return f"{network}, {weights} weights" if identity.trained else f"{network}, *untrained* {weights} weights"
