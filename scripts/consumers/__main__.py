"""Ask every runtime to open every file, and write the table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import onnxruntime

from exporter.commands import terminal
from scripts.consumers.consumer import ROOT, ask
from scripts.consumers.models import export_models
from scripts.consumers.rows import consumers
from scripts.consumers.table import cell, write

RESULTS = ROOT / "docs" / "results" / "consumers"


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the results.")
def main(output: Path) -> None:
    """Write which runtimes open the files of rexport as they are, and how far their logits are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(consumers(folder))
        models = list(export_models(folder))
        answers = []
        for consumer in rows:
            for model in models:
                answers.append(ask(consumer, model, folder))
                click.echo(
                    f"{consumer.name}, {model.form.name}: {cell(answers[-1])} {answers[-1].reason or ''}", err=True
                )
        logits = models[0].logits
        facts = {"version": onnxruntime.__version__, "low": float(logits.min()), "high": float(logits.max())}
        click.echo(write(output, rows, answers, facts))


if __name__ == "__main__":
    terminal.run(main)
