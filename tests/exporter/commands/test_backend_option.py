from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from benchmarks.cli import rbench
from exporter.cli import cli
from exporter.commands.backend_option import backend_option
from scripts import gpu_matrix


@click.command()
@backend_option("backends", multiple=True, help="Backends.")
def several(backends: tuple[str, ...]) -> None:
    click.echo(",".join(backends))


@pytest.mark.parametrize(
    ("arguments", "backends"),
    [
        (["--backend", "openvino"], "openvino"),
        (["--runtime", "openvino"], "openvino"),
        (["--backend", "ort", "--runtime", "OV", "--backend", "Trt"], "onnxruntime,openvino,tensorrt"),
        (["--backend", "PyTorch"], "pytorch"),
        (["--backend", "Nothing-Such"], "Nothing-Such"),
        ([], ""),
    ],
)
def test_aliases_and_the_former_name_mean_the_same(arguments: list[str], backends: str) -> None:
    done = CliRunner().invoke(several, arguments)
    assert (done.exit_code, done.output) == (0, f"{backends}\n")


COMMANDS = [
    *((cli, name) for name in ("verify", "predict", "explain")),
    *((rbench, name) for name in ("run", "tune", "load")),
    (gpu_matrix.main, ""),
]


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_help_shows_the_name_backend_alone(group: click.Command, name: str) -> None:
    shown = CliRunner().invoke(group, [*([name] if name else []), "--help"]).output
    assert "--backend NAME" in shown
    assert "--runtime" not in shown
