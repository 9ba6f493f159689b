"""``rbench paper``: the experiments of He et al. 2015, rerun. Everything heavy is imported late."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands.options import POSITIVE, SETTINGS, count_option, device_option, seed_option, threads_option
from exporter.commands import terminal
from exporter.commands.command import stack_options
from exporter.commands.values import Numbers

if TYPE_CHECKING:
    from benchmarks.paper.experiments.curves import Curves
    from benchmarks.paper.experiments.inspection import Inspection
    from benchmarks.paper.experiments.study import TrainingOptions
    from benchmarks.paper.training.corpus import Source
    from benchmarks.records.findings import Findings
    from exporter.models.variants import Shortcut, Variant
    from exporter.network import ExportListener

FOLDER, RUNS = Path("paper-results"), "runs"
"""Where the experiments put what they find, and in it a folder for each training run."""

FIGURE_NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
"""Those of Figure 1, and the ends of Figure 6."""

INITIAL_NETWORKS = ("plain20", "resnet20", "plain56", "resnet56", "plain110", "resnet110")

network_option = partial(click.option, "--network", metavar="VARIANT")
seeds_option = partial(count_option, "--seeds", type=click.IntRange(1, 1000))
size_option = partial(count_option, "--size", type=click.IntRange(min=8), default=32)
out_option = partial(click.option, "-o", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")

data_options = stack_options(
    click.option(
        "--data",
        "train_data",
        default="fashion-mnist",
        metavar="NAME|DIR|FILE",
        help="Training images: fashion-mnist (Debian's dataset-fashion-mnist), fashion-mnist-sample (1,000 that come "
        "with rexport), or a folder or archive with CIFAR-10 or one folder a class.",
    ),
    click.option("--test-data", metavar="DIR|FILE", help="Test images, if they lie elsewhere."),
    click.option("--data-name", metavar="TEXT", help="Name of the data in results. Default: its own name."),
    count_option("--limit", help="Take N training and N test images at most."),
)

training_options = stack_options(
    data_options,
    size_option(help="Height and width of the network's input in pixels; image files are resized to it."),
    click.option(
        "--scale",
        "factor",
        type=POSITIVE,
        metavar="F",
        help="Shorten the whole schedule to this share; every result says so. Default: 1.",
    ),
    count_option("--epochs", help="Shorten it to N passes over the data."),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        help="Precision of the convolutions; bf16 is faster on a GPU, and on a processor with AMX.",
    ),
    threads_option,
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Compile with TorchInductor, which needs a C++ compiler and takes half a minute or, for deep nets on a "
        "CPU, several minutes. Default: from 2,000 iterations on.",
    ),
    click.option(
        "--stop-after",
        "stop_after_s",
        type=click.FloatRange(min=1),
        metavar="S",
        help="Leave after S seconds with exit code 1; the same command then goes on.",
    ),
    click.option(
        "--checkpoint-every",
        "checkpoint_every_s",
        type=click.FloatRange(min=0),
        default=30.0,
        metavar="S",
        help="Seconds of work that a kill may cost.",
    ),
    count_option(
        "--states",
        type=click.IntRange(0, 1000),
        default=0,
        help="Keep N states of each network along its training, for rbench paper gradients.",
    ),
)

findings_option = out_option(default=FOLDER, help="Folder for findings and pictures, with the training runs in it.")
comparison_options = stack_options(
    seeds_option(default=1, help="Runs of each network."),
    click.option(
        "--so-far",
        is_flag=True,
        help="Train nothing: show the runs as they are, up to where all have come. Only --network, --seeds and -o "
        "then count.",
    ),
    training_options,
    findings_option,
    terminal.debug_option,
)

inspection_options = stack_options(
    data_options,
    size_option(help="Height and width of the input in pixels."),
    click.option("--mean", type=Numbers(), help="Mean that a FILE was trained with. Default: ImageNet's."),
    click.option("--std", type=Numbers(), help="Standard deviation likewise."),
    findings_option,
    terminal.debug_option,
)


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
    help="The recipe of the paper's section 4.2, or the one of the bundled weights.",
)
@click.option("--shortcut", type=click.Choice(["A", "B", "C"]), help="Default: that of the variant.")
@seed_option()
@out_option(help=f"Folder of the run. Default: {FOLDER}/{RUNS}/VARIANT-seedN.")
@terminal.debug_option
def train(variant: str, shortcut: Shortcut | None, seed: int, folder: Path | None, **options: Any) -> None:
    """Train VARIANT by the paper's recipe. Prints the path of the weights, which rexport onnx --weights takes.

    The same command goes on where it was interrupted, and on a CPU ends in the same bits.
    """
    from benchmarks.paper.experiments import study
    from benchmarks.paper.training.run import WEIGHTS, open_run

    folder = _run_folder(FOLDER, variant, shortcut, seed) if folder is None else folder
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


def _run_folder(folder: Path, variant: str, shortcut: Shortcut | None, seed: int) -> Path:
    option = "" if shortcut is None else f"-{shortcut}"
    return folder / RUNS / f"{variant}{option}-seed{seed}"


def _source(options: dict[str, Any]) -> Source:
    """What ``data_options`` and ``size_option`` say, which is taken out of the options."""
    from benchmarks.paper.training.corpus import Source

    return Source(*(options.pop(name) for name in ("train_data", "test_data", "data_name", "limit", "size")))


def _setup(**options: Any) -> TrainingOptions:
    from benchmarks.paper.experiments.study import TrainingOptions
    from benchmarks.paper.training.loop import Pace

    pace = Pace(options.pop("stop_after_s"), options.pop("checkpoint_every_s"), options.pop("states"))
    return TrainingOptions(_source(options), pace=pace, **options)


@paper.command(context_settings=SETTINGS)
@network_option("networks", multiple=True, default=FIGURE_NETWORKS, help="Network to train; repeatable.")
@comparison_options
def degradation(networks: tuple[str, ...], **options: Any) -> None:
    """Plain nets against residual nets of several depths: the paper's Figures 1 and 6."""
    from benchmarks.paper.experiments import comparisons

    _compare([(name, None) for name in networks], comparisons.degradation_findings, **options)


@paper.command(context_settings=SETTINGS)
@comparison_options
def depth(**options: Any) -> None:
    """ImageNet's nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4."""
    from benchmarks.paper.experiments import comparisons

    _compare(comparisons.DEPTH_NETWORKS, comparisons.depth_findings, **options)


@paper.command(context_settings=SETTINGS)
@network_option(default="resnet20", help="Residual network to train.")
@comparison_options
def shortcuts(network: str, **options: Any) -> None:
    """Shortcut options A, B and C of one network: the paper's Table 3."""
    from benchmarks.paper.experiments import comparisons

    networks = [(network, option) for option in comparisons.SHORTCUT_OPTIONS]
    _compare(networks, comparisons.shortcuts_findings, **options)


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
@network_option(
    "initial", multiple=True, default=INITIAL_NETWORKS, help="Network to examine as it is initialised; repeatable."
)
@seeds_option(default=2, help="Seeds of each initialised network.")
@count_option("--images", type=click.IntRange(min=2), default=64, help="Images in the batch.")
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
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **data: Any,
) -> None:
    """Measures networks on the data, and says what is found."""
    from benchmarks.paper.experiments.inspection import IMAGENET_MOMENTS, Inspection
    from runtimes.errors import UsageError
    from runtimes.files import check_writable

    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    moments = IMAGENET_MOMENTS if mean is None or std is None else (mean, std)
    check_writable(folder)
    source = _source(data)
    _publish(lambda command, listener: measure(Inspection(source, moments, command, listener)), folder)


def _compare(
    networks: Sequence[tuple[str, Shortcut | None]],
    experiment: Callable[[Sequence[Curves], str], Findings],
    *,
    seeds: int,
    so_far: bool,
    folder: Path,
    **options: Any,
) -> None:
    """Trains what is not trained yet, and says what is found."""
    from benchmarks.paper.experiments import curves, study

    runs = [(_run_folder(folder, *network, seed), *network, seed) for seed in range(seeds) for network in networks]
    by_option = len({name for name, _ in networks}) < len(networks)

    def label(variant: Variant) -> str:
        return f"{variant.name}, option {variant.shortcut}" if by_option else variant.name

    def work(command: str, listener: ExportListener) -> Findings:
        folders = [run for run, *_ in runs] if so_far else study.train(runs, _setup(**options), listener)
        return experiment(curves.gather_runs(folders, label, so_far), command)

    _publish(work, folder)


def _publish(work: Callable[[str, ExportListener], Findings], folder: Path) -> None:
    """Says what the work finds, and writes it and its pictures into the folder."""
    from benchmarks.records import findings as files
    from benchmarks.report.findings import findings_document
    from benchmarks.report_html import findings_plots
    from exporter.document.terminal import as_text

    with terminal.reserve_stdout(), terminal.listening() as listener:
        findings = work(shlex.join(["rbench", *sys.argv[1:]]), listener)
        paths = (files.write(findings, folder), *findings_plots.write_pictures(findings, folder))
    click.echo(as_text(findings_document(findings)), nl=False)
    for path in paths:
        click.echo(path)
