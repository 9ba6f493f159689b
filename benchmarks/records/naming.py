"""Short names for results: their weights, and the machine and device that they were taken on."""

from __future__ import annotations

from benchmarks.records.result import Result


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
