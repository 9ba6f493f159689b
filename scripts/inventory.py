"""What there is to measure with on this machine, and what is missing: ``python -m scripts.inventory``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.machine import gpu
from benchmarks.machine.environment import Environment, environment
from exporter.commands import terminal
from runtimes import Backend, available_backends, codec, files
from runtimes.errors import BackendUnavailableError, Reason

NEEDS = {
    **{name: f"'rexport[{terminal.EXTRAS[name]}]'" for name in ("torch", "onnx", "onnxscript", "nncf")},
    "pytest": "pytest pytest-timeout",
    "pytest_timeout": "pytest pytest-timeout",
}
"""Modules that exporting and testing need, and what brings each."""


@dataclass(frozen=True)
class Inventory:
    """What there is. ``present`` names backends and modules; ``missing`` says of each other one why, with the line that
    brings it."""

    environment: Environment
    present: tuple[str, ...]
    missing: Mapping[str, str]


def inventory(device: str) -> Inventory:
    """What this machine has for measuring on ``device``; backends that never run there are left out."""
    reasons: dict[str, str | None] = {}
    for row in available_backends():
        if device in row.devices:
            reason = absent(row, device)
            reasons[row.name] = None if reason is None else reason.sentence
    for name, package in NEEDS.items():
        there = importlib.util.find_spec(name) is not None
        reasons[name] = None if there else f"{name} is not installed (pip install {package})"
    if device != "cpu":
        reasons["clocks, power, energy"] = gpu.missing()
    present = tuple(name for name, reason in reasons.items() if reason is None)
    return Inventory(environment(), present, {name: reason for name, reason in reasons.items() if reason is not None})


def absent(backend: Backend, device: str) -> Reason | None:
    """Why the backend cannot be used on a device that it has, with the line that mends it, or ``None``. On a GPU, its
    library must have been built for one; it is imported to see."""
    missing = backend.missing()
    if missing is not None or device == "cpu" or backend.check_gpu is None:
        return missing
    try:
        backend.check_gpu()
    except BackendUnavailableError as error:
        return Reason(error.code, f"{error.what} ({error.hint})")
    return None


def format_inventory(inventory: Inventory) -> tuple[str, ...]:
    """For people: the machine, what is there, and a line for each thing that is missing."""
    here = inventory.environment
    graphics = " and ".join(f"{card.name}, driver {card.driver}, CUDA {card.cuda}" for card in here.gpus)
    return (
        f"{here.cpu}, {here.usable_processors} of {here.processors} processors; {graphics or 'no NVIDIA GPU'}",
        f"here: {', '.join(inventory.present) or 'nothing'}",
        *(f"missing: {name}: {reason}" for name, reason in inventory.missing.items()),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cuda", show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write it as JSON too.")
def main(device: str, target: Path | None) -> None:
    """Say what there is to measure with on this machine, and what is missing."""
    with terminal.reserve_stdout():
        here = inventory(device)
    if target is not None:
        with files.write_atomically(target) as temporary:
            temporary.write_text(codec.dumps(here, indent=2) + "\n", encoding="utf-8")
    click.echo("\n".join(format_inventory(here)))


if __name__ == "__main__":
    terminal.run(main)
