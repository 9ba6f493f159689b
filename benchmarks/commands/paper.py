"""``rbench paper``: the experiments of He et al. 2015, rerun. Everything heavy is imported late."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands.options import SETTINGS, seed_option
from benchmarks.commands.paper_options import (
    FOLDER,
    RUNS,
    comparison_options,
    inspection_options,
    network_option,
    out_option,
    seeds_option,
    training_options,
)
from exporter.commands import terminal

if TYPE_CHECKING:
    from benchmarks.paper.experiments.curves import Curves
    from benchmarks.paper.experiments.inspection import Inspection
    from benchmarks.paper.experiments.study import TrainingOptions
    from benchmarks.records.findings import Findings
    from exporter.models.variants import Shortcut, Variant

FIGURE_NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
"""Those of Figure 1, and the ends of Figure 6."""

INITIAL_NETWORKS = ("plain20", "resnet20", "plain56", "resnet56", "plain110", "resnet110")


@click.group(context_settings=SETTINGS)
def paper() -> None:
    """Rerun the experiments of Deep Residual Learning for Image Recognition (arXiv 1512.03385) on real data.

    Each leaves its findings as JSON and as pictures in a folder; rbench report makes a page of that.
    """


@paper.command(context_settings=SETTINGS)
@click.argument("variant", metavar="VARIANT")
@training_options
@click.option(
    "--recipe",
    type=click.Choice(["paper", "bundled"]),
    default="paper",
    show_default=True,
    help="The recipe of the paper's section 4.2, or the one of the bundled weights.",
)
@click.option("--shortcut", type=click.Choice(["A", "B", "C"]), help="Default: that of the variant.")
@seed_option(None)
@out_option(None, f"Folder of the run. Default: {FOLDER}/{RUNS}/VARIANT-seedN.")
@terminal.debug_option
def train(variant: str, shortcut: Shortcut | None, seed: int, folder: Path | None, **options: Any) -> None:
    """Train VARIANT by the paper's recipe. Prints the path of the weights, which rexport onnx --weights takes.

    The same command goes on where it was interrupted, and on a CPU ends in the same bits.
    """
    from benchmarks.paper.experiments import study
    from benchmarks.paper.training.run import WEIGHTS, open_run

    folder = FOLDER / RUNS / _run_name(variant, shortcut, seed) if folder is None else folder
    with terminal.reserve_stdout(), terminal.listening() as listener:
        study.train([(folder, variant, shortcut, seed)], _setup(**options), listener)
        run = open_run(folder)
        listener.notice(run.identity.recipe.describe())
        if run.step_s is not None and run.input_share is not None:
            listener.notice(
                f"an update takes {1e3 * run.step_s:.1f} ms, making its batch {run.input_share:.1%} of that"
            )
        listener.notice(study.export_command(folder, run))
    click.echo(folder / WEIGHTS)


def _run_name(variant: str, shortcut: Shortcut | None, seed: int) -> str:
    option = "" if shortcut is None else f"-{shortcut}"
    return f"{variant}{option}-seed{seed}"


def _setup(**options: Any) -> TrainingOptions:
    from benchmarks.paper.experiments.study import TrainingOptions
    from benchmarks.paper.training.corpus import Source
    from benchmarks.paper.training.loop import Pace

    source = Source(
        options.pop("train_data"),
        options.pop("test_data"),
        options.pop("data_name"),
        options.pop("limit"),
        options.pop("size"),
    )
    pace = Pace(options.pop("stop_after_s"), options.pop("checkpoint_every_s"), options.pop("states"))
    return TrainingOptions(source, pace=pace, **options)


@paper.command(context_settings=SETTINGS)
@network_option("networks", FIGURE_NETWORKS, "Network to train; repeatable.")
@comparison_options
def degradation(networks: tuple[str, ...], seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """Plain nets against residual nets of several depths: the paper's Figures 1 and 6."""
    from benchmarks.paper.experiments import comparisons

    _compare([(name, None) for name in networks], seeds, folder, options, comparisons.degradation_findings, so_far)


@paper.command(context_settings=SETTINGS)
@comparison_options
def depth(seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """ImageNet's nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4."""
    from benchmarks.paper.experiments import comparisons

    _compare(comparisons.DEPTH_NETWORKS, seeds, folder, options, comparisons.depth_findings, so_far)


@paper.command(context_settings=SETTINGS)
@click.option("--network", default="resnet20", show_default=True, metavar="VARIANT", help="Residual network to train.")
@comparison_options
def shortcuts(network: str, seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """Shortcut options A, B and C of one network: the paper's Table 3."""
    from benchmarks.paper.experiments import comparisons

    networks = [(network, option) for option in comparisons.SHORTCUT_OPTIONS]
    _compare(networks, seeds, folder, options, comparisons.shortcuts_findings, so_far)


@paper.command(context_settings=SETTINGS)
@click.argument("networks", nargs=-1, required=True, metavar="RUN|VARIANT=FILE...")
@inspection_options
def responses(networks: tuple[str, ...], **options: Any) -> None:
    """How strongly each layer responds, in networks that are trained: the paper's Figure 7.

    Each is the folder of a training run, or VARIANT=FILE with anybody's weights.
    """
    from benchmarks.paper.experiments.inspection import layer_responses

    _examine(partial(layer_responses, networks), **options)


@paper.command(context_settings=SETTINGS)
@click.argument("networks", nargs=-1, metavar="[RUN|VARIANT=FILE]...")
@network_option("initial", INITIAL_NETWORKS, "Network to examine as it is initialised; repeatable.")
@seeds_option(2, "Seeds of each initialised network.")
@click.option(
    "--images", type=click.IntRange(min=2), default=64, show_default=True, metavar="N", help="Images in the batch."
)
@inspection_options
def gradients(networks: tuple[str, ...], initial: tuple[str, ...], seeds: int, images: int, **options: Any) -> None:
    """Gradients by layer, with batch-norm and without, and what the shortcut's + 1 carries.

    Of networks as they are initialised; and of trained ones, along their training if --states kept them on the way.
    """
    from benchmarks.paper.experiments.inspection import layer_gradients

    _examine(partial(layer_gradients, networks, initial, seeds, images), **options)


@paper.command(context_settings=SETTINGS)
@click.argument("networks", nargs=-1, required=True, metavar="RUN|VARIANT=FILE...")
@inspection_options
def identity(networks: tuple[str, ...], **options: Any) -> None:
    """A deeper network that computes what a trained shallower one does, built from it: section 1 of the paper.

    With runs of two plain networks it also says whether training the deeper one found as good a solution.
    """
    from benchmarks.paper.experiments.inspection import examine_construction

    _examine(partial(examine_construction, networks), **options)


def _examine(
    measure: Callable[[Inspection], Findings],
    *,
    folder: Path,
    size: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **data: Any,
) -> None:
    """Measures networks on the data, and says what is found."""
    from benchmarks.paper.experiments.inspection import IMAGENET_MOMENTS, Inspection
    from benchmarks.paper.training.corpus import Source
    from runtimes.errors import UsageError
    from runtimes.files import check_writable

    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    moments = IMAGENET_MOMENTS if mean is None or std is None else (mean, std)
    source = Source(data["train_data"], data["test_data"], data["data_name"], data["limit"], size)
    check_writable(folder)
    with terminal.reserve_stdout(), terminal.listening() as listener:
        found = measure(Inspection(source, moments, _command(), listener))
        findings, paths = _save_findings(found, folder)
    _print_findings(findings, paths)


def _compare(
    networks: Sequence[tuple[str, Shortcut | None]],
    seeds: int,
    folder: Path,
    options: dict[str, Any],
    experiment: Callable[[Sequence[Curves], str], Findings],
    so_far: bool,
) -> None:
    """Trains what is not trained yet, and says what is found."""
    from benchmarks.paper.experiments import curves, study

    wanted = [
        (folder / RUNS / _run_name(name, option, seed), name, option, seed)
        for seed in range(seeds)
        for name, option in networks
    ]
    label = _with_option if len({name for name, _ in networks}) < len(networks) else _plain_name
    with terminal.reserve_stdout(), terminal.listening() as listener:
        folders = tuple(run for run, *_ in wanted) if so_far else study.train(wanted, _setup(**options), listener)
        found = curves.gather_runs(folders, label, so_far)
        findings, paths = _save_findings(experiment(found, _command()), folder)
    _print_findings(findings, paths)


def _plain_name(variant: Variant) -> str:
    return variant.name


def _with_option(variant: Variant) -> str:
    return f"{variant.name}, option {variant.shortcut}"


def _command() -> str:
    return shlex.join(["rbench", *sys.argv[1:]])


def _save_findings(findings: Findings, folder: Path) -> tuple[Findings, tuple[Path, ...]]:
    """Writes findings and pictures into the folder."""
    from benchmarks.records import findings as files
    from benchmarks.report_html import findings_plots

    return findings, (files.write(findings, folder), *findings_plots.write_pictures(findings, folder))


def _print_findings(findings: Findings, paths: tuple[Path, ...]) -> None:
    from benchmarks.report.findings import findings_document
    from exporter.document.terminal import as_text

    click.echo(as_text(findings_document(findings)), nl=False)
    for path in paths:
        click.echo(path)
