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
from runtimes.errors import BackendUnavailableError

NEEDS = {
    **{name: f"'rexport[{terminal.EXTRAS[name]}]'" for name in ("torch", "onnx", "onnxscript", "nncf")},
    "pytest": "pytest pytest-timeout",
    "pytest_timeout": "pytest pytest-timeout",
}
"""Modules that exporting and testing need, and what brings each."""


@dataclass(frozen=True)
class Inventory:
    """What there is. ``present`` names runtimes and modules; ``missing`` says of each other one why, with the line that
    brings it."""

    environment: Environment
    present: tuple[str, ...]
    missing: Mapping[str, str]


def inventory(device: str) -> Inventory:
    """Of this machine, for measuring on ``device``; runtimes that never run there are left out."""
    reasons: dict[str, str | None] = {
        row.name: absent(row, device)
        for row in available_backends()
        if device in row.devices and "fake" not in row.formats
    }
    reasons |= {name: _explain_missing(name, brings) for name, brings in NEEDS.items()}
    if device != "cpu":
        reasons["clocks, power, energy"] = gpu.missing()
    present = tuple(name for name, reason in reasons.items() if reason is None)
    return Inventory(environment(), present, {name: reason for name, reason in reasons.items() if reason is not None})


def absent(backend: Backend, device: str) -> str | None:
    """Why the backend cannot be used on a device that it has, with the line that mends it, or ``None``. On a GPU, its
    library must have been built for one; it is imported to see."""
    missing = backend.missing()
    if missing is not None:
        return missing.sentence
    if device == "cpu" or backend.check_gpu is None:
        return None
    try:
        backend.check_gpu()
    except BackendUnavailableError as error:
        return f"{error.what} ({error.hint})"
    return None


def _explain_missing(module: str, brings: str) -> str | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed (pip install {brings})"


def format_inventory(found: Inventory) -> tuple[str, ...]:
    """For people: the machine, what is there, and a line for each thing that is missing."""
    about = found.environment
    graphics = " and ".join(f"{one.name}, driver {one.driver}, CUDA {one.cuda}" for one in about.gpus)
    return (
        f"{about.cpu}, {about.usable_processors} of {about.processors} processors; {graphics or 'no NVIDIA GPU'}",
        f"here: {', '.join(found.present) or 'nothing'}",
        *(f"missing: {name}: {reason}" for name, reason in found.missing.items()),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cuda", show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write it as JSON too.")
def main(device: str, target: Path | None) -> None:
    """Say what there is to measure with on this machine, and what is missing."""
    with terminal.reserve_stdout():
        found = inventory(device)
    if target is not None:
        with files.write_atomically(target) as temporary:
            temporary.write_text(codec.dumps(found, indent=2) + "\n", encoding="utf-8")
    click.echo("\n".join(format_inventory(found)))


if __name__ == "__main__":
    terminal.run(main)
