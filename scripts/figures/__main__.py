"""What rexport promises of its own cost and exactness, measured: ``python -m scripts.figures [NAME ...]``.

Ratios only: both sides in one run, interleaved A B A B, medians, with a 95 % interval. ``cifar``, ``drops``, ``int8``
and ``preprocessing`` need the published CIFAR-10 weights and images, and ``photos`` needs photographs. They do not come
with rexport: name their folder with ``--shared``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from exporter.commands import terminal
from scripts.figures import (
    bindings,
    disturbances,
    embedding,
    engines,
    evaluation,
    examples,
    finite_check,
    fp8,
    gpu_columns,
    graph_forms,
    growth,
    instrument,
    int8_accuracy,
    int8_roof,
    interrupts,
    labelling,
    labelling_kills,
    labelling_ray,
    load_url,
    outputs,
    overhead,
    photos,
    precision,
    preprocessing,
    pytorch_calls,
    servers,
    serving,
    training,
    triton,
    web,
    writers,
)
from scripts.figures.setting import Figure, FigureSettings

FIGURES: dict[str, Callable[[FigureSettings], Iterator[Figure]]] = {
    "help": overhead.first_help,
    "overhead": overhead.overhead,
    "finite-check": finite_check.measure_finite_check,
    "pytorch-calls": pytorch_calls.pytorch_calls,
    "startup": overhead.startup,
    "export": overhead.export,
    "bundled": overhead.measure_bundled,
    "cifar": overhead.cifar,
    "preprocessing": preprocessing.measure_preprocessing,
    "photos": photos.measure_photos,
    "outputs": outputs.measure_outputs,
    "embedding": embedding.measure_embedding,
    "native": precision.native,
    "int8-speed": precision.int8,
    "int8": int8_accuracy.measure_int8,
    "int8-roof": int8_roof.measure_int8_roof,
    "request": precision.request,
    "drops": precision.drops,
    "tune": precision.tune,
    "sizes": precision.sizes,
    "pipeline": precision.pipeline,
    "engines": engines.engines,
    "bindings": bindings.measure_bindings,
    "fp8": fp8.measure_fp8,
    "gpu-columns": gpu_columns.measure_gpu_columns,
    "verdicts": instrument.verdicts,
    "harness": instrument.harness,
    "disturbed": disturbances.measure_disturbed,
    "evaluation": evaluation.evaluation,
    "alone": instrument.alone,
    "training": training.training,
    "label": labelling.label_speed,
    "label-memory": labelling.label_memory,
    "label-process-kills": labelling_kills.measure_process_kills,
    "label-ray": labelling_ray.measure_ray,
    "label-kills": labelling_kills.measure_kills,
    "writes-failures": writers.measure_failures,
    "writes-kills": writers.measure_kills,
    "interrupts": interrupts.measure_interrupts,
    "triton": triton.measure_triton,
    "kserve": servers.measure_kserve,
    "serve-hostile": servers.measure_hostile,
    "examples": examples.measure_examples,
    "forms": graph_forms.measure_graph_forms,
    "growth-export": growth.growth_export,
    "growth-report": growth.growth_report,
    "growth-reader": growth.growth_reader,
    "growth-label": growth.growth_label,
    "serve-parity": serving.serve_parity,
    "serve-request": serving.serve_request,
    "serve-load": serving.serve_load,
    "serve-answers": serving.serve_answers,
    "serve-memory": serving.serve_memory,
    "serve-drain": serving.serve_drain,
    "load-url": load_url.measure_load_url,
    "web": web.measure_web,
}
NEED_SHARED = ("cifar", "int8", "photos", "preprocessing")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="Pairs of processes.")
@click.option("--shared", type=click.Path(path_type=Path, exists=True), help="Folder of CIFAR-10 and photos.tar.")
@click.option("--limit", type=click.IntRange(1), help="Images, requests, writers, kills or signals, for a trial.")
def main(names: tuple[str, ...], rounds: int, shared: Path | None, limit: int | None) -> None:
    """Measure rexport's own figures, by default all that can be; exit code 1 if one is out of its bound."""
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        setting = FigureSettings(Path(folder), rounds, shared, limit)
        for name in names or [name for name in FIGURES if shared is not None or name not in NEED_SHARED]:
            for figure in FIGURES[name](setting):
                click.echo(f"{'holds ' if figure.holds else 'MISSED'}  {figure.name}: {figure.value} ({figure.bound})")
                for note in figure.notes:
                    click.echo(f"        {note}")
                missed = missed or not figure.holds
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    terminal.run(main)
