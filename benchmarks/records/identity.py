"""What identifies a result, its reference, the newest of each configuration, and words for weights and machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from exporter.format import count
from runtimes.errors import Reason

if TYPE_CHECKING:  # the names of the fields are options of ``rbench compare``, whose help imports nothing heavy
    from benchmarks.records.result import Baseline, Result

Value: TypeAlias = str | int | float | bool | tuple[object, ...] | None


@dataclass(frozen=True)
class Field:
    """One of the things that two results must have in common.

    Attributes:
        name: as the user names it.
        of: what a result has there.
        names: whether it says which configuration a result is of. The others are the conditions that it was measured
            under: of two results of one configuration they must agree.
        text: of a value.
    """

    name: str
    of: Callable[[Result], Value]
    names: bool
    text: Callable[[Value], str] = str


def load_value(result: Result) -> Value:
    """What identifies the load: its shape, and how many clients there were."""
    return None if result.load is None else (result.load.shape, result.load.clients)


def format_load_value(value: Value) -> str:
    """The same in a few words."""
    if not isinstance(value, tuple):
        return "none"
    shape, clients = value
    return count(int(str(clients)), "client") if shape == "clients" else str(shape)


def _rate(result: Result) -> Value:
    """The rate that was asked for. One that was not is taken from what the machine gave, so that no two runs have the
    same: of it the share counts."""
    if result.load is None:
        return None
    share = result.load.rate_share
    return result.load.rate_per_s if share is None else f"{share:.0%} of single-stream's"


def _machine(result: Result) -> Value:
    """The processor; of a result of a GPU, the GPU too."""
    about = result.environment
    gpu = result.gpu.before.name if result.gpu.before is not None else " and ".join(one.name for one in about.gpus)
    return " with ".join(filter(None, (about.cpu, gpu if result.asked.cuda_graphs is not None else "")))


FIELDS: tuple[Field, ...] = (
    Field("subject", lambda result: result.identity.subject or result.identity.artifact, names=True),
    Field("file", lambda result: result.identity.file, names=True),
    Field("runtime", lambda result: result.identity.backend, names=True),
    Field("precision", lambda result: result.identity.precision, names=True),
    Field("batch", lambda result: result.identity.batch, names=True),
    Field("cuda-graphs", lambda result: result.asked.cuda_graphs, names=True),
    Field("load", load_value, names=True, text=format_load_value),
    Field("sha256", lambda result: result.identity.sha256, names=False, text=lambda value: str(value)[:12]),
    Field("threads", lambda result: result.ran.threads, names=False),
    Field("device", lambda result: result.ran.device, names=False),
    Field("machine", _machine, names=False),
    Field("rate", _rate, names=False),
)
"""The first of these that a user names with ``--across`` may differ."""


NOT_REACHED = Reason("not-reached", "not reached: the run ended early")
"""Why there is nothing of a configuration that was planned."""


def latest(results: Sequence[Result]) -> tuple[Result, ...]:
    """Of each configuration, as it was asked for, the results of the last run that reached it, in their order; of one
    that no run reached, those of the last run."""
    runs: dict[tuple[Value, ...], tuple[bool, str, str]] = {}
    for result in results:
        key = _identify_request(result)
        reached = result.reason is None or result.reason.code != NOT_REACHED.code
        runs[key] = max(runs.get(key, (False, "", "")), (reached, result.time, result.run))
    return tuple(result for result in results if runs[_identify_request(result)][2] == result.run)


def _identify_request(result: Result) -> tuple[Value, ...]:
    threads, device = result.asked.threads or result.ran.threads, result.asked.device or result.ran.device
    named = (field.of(result) for field in FIELDS if field.names)
    return (*named, threads, device, _machine(result), _rate(result))


def configuration(result: Result, across: Collection[str] = ()) -> tuple[Value, ...]:
    """What the result is of, on what and with how many threads, but for what may differ. A run may measure one twice,
    as a search does that tries its best again."""
    kept = (field for field in FIELDS if field.names or field.name in ("threads", "device"))
    return tuple(field.of(result) for field in kept if field.name not in across)


def find_timed_reference(result: Result, among: Sequence[Result]) -> Result | None:
    """The reference of the same run, subject and batch, whose latency the result's is compared with; of several the one
    that took turns with it."""
    group = result.asked.group
    timed = [one for one in _references(result, among) if one.samples and one.identity.batch == result.identity.batch]
    return next((one for one in timed if one.asked.group == group), timed[0]) if timed else None


def find_evaluated_reference(result: Result, among: Sequence[Result]) -> Result | None:
    """The reference of the same run and subject whose predictions the result's are compared with: the first that has
    any, of any batch."""
    return next((one for one in _references(result, among) if one.predictions is not None), None)


def _references(result: Result, among: Sequence[Result]) -> list[Result]:
    key = result.run, result.identity.subject
    return [one for one in among if (one.run, one.identity.subject) == key and one.status == "ok" and is_reference(one)]


def baseline_of(result: Result) -> Baseline:
    """What the result is compared with: what was recorded, or PyTorch in fp32."""
    from benchmarks.records import request
    from benchmarks.records.result import Baseline

    return result.asked.baseline or Baseline(request.REFERENCE, request.FP32)


def is_reference(result: Result) -> bool:
    """Whether it is a result of the baseline itself."""
    of, baseline = result.identity, baseline_of(result)
    return (of.backend, of.precision, of.file) == (baseline.backend, baseline.precision, baseline.file)


def describe_baseline(result: Result) -> str:
    """The baseline in a few words."""
    baseline = baseline_of(result)
    return " ".join(filter(None, (baseline.backend, baseline.precision, baseline.file)))


def locate(result: Result) -> tuple[str, ...]:
    """The machine and the device that the result was to be measured on."""
    machine = result.environment
    return (machine.cpu, *(gpu.name for gpu in machine.gpus), result.asked.device or result.ran.device)


def weights_of(result: Result) -> str:
    """The weights in words; those that were never trained are marked so wherever they stand."""
    of = result.identity
    if of.trained is None:
        return f"{of.variant}, foreign file" if of.variant != of.artifact else "foreign file"
    return f"{of.variant}, {of.weights} weights" if of.trained else f"{of.variant}, *untrained* {of.weights} weights"
