"""``rbench paper``: the experiments of He et al. 2015, rerun. Everything heavy is imported late."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.commands.options import POSITIVE, announce_unused, threads_option
from exporter.commands import streams, terminal
from exporter.commands.command import (
    DATA,
    MODEL,
    OUTPUT,
    PRECISION,
    RUNTIME,
    Group,
    NameChoice,
    OptionSection,
    stack_options,
)
from exporter.commands.options import variant_argument
from exporter.commands.values import COUNT, SEED, VARIANT, FiniteFloat, Numbers, OutputPath
from runtimes.arguments import LARGEST_COUNT

if TYPE_CHECKING:
    from benchmarks.paper.experiments.curves import Curves
    from benchmarks.paper.experiments.inspection import Inspection
    from benchmarks.paper.experiments.study import TrainingOptions
    from benchmarks.paper.training.corpus import Source
    from benchmarks.records.findings import Findings
    from exporter.export_request import ExportListener
    from exporter.models.variants import Shortcut, Variant

FOLDER, RUNS = Path("paper-results"), "runs"
"""Where the experiments put what they find, and in it a folder for each training run."""

FIGURE_NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
"""Those of Figure 1, and the ends of Figure 6."""

INITIAL_NETWORKS = ("plain20", "resnet20", "plain56", "resnet56", "plain110", "resnet110")

EXPERIMENTS, TRAINING = "Experiments", OptionSection("Training")

network_option = partial(MODEL.option, "--network", type=VARIANT, metavar="VARIANT")
seeds_option = partial(TRAINING.option, "--seeds", type=click.IntRange(1, 1000), metavar="N")
LARGEST_SIDE = 65_535
"""The largest height and width in pixels, which is that of a JPEG file."""

size_option = MODEL.option(
    "--size",
    type=click.IntRange(8, LARGEST_SIDE),
    default=32,
    metavar="N",
    help="Height and width of the input in pixels; image files are resized to it.",
)
out_option = partial(OUTPUT.option, "-o", "folder", type=OutputPath(path_type=Path, file_okay=False), metavar="DIR")
runs_argument = partial(
    click.argument,
    "networks",
    nargs=-1,
    help="Trained networks: folders of rbench paper train, or VARIANT=FILE with any weights of a variant.",
)

data_options = stack_options(
    DATA.option(
        "--data",
        "train_data",
        default="fashion-mnist",
        metavar="NAME|DIR|FILE",
        help="Training images: fashion-mnist (Debian's dataset-fashion-mnist), fashion-mnist-sample (1,000 that come "
        "with rexport), or a folder or archive with CIFAR-10 or one folder a class.",
    ),
    DATA.option(
        "--test-data", metavar="DIR|FILE", show_default="those of --data", help="Test images, if they lie elsewhere."
    ),
    DATA.option("--data-name", metavar="TEXT", show_default="its own name", help="Name of the data in results."),
    DATA.option(
        "--limit",
        type=COUNT,
        metavar="N",
        show_default="all",
        help="Maximum number of training images, and of test images.",
    ),
)

training_options = stack_options(
    data_options,
    size_option,
    TRAINING.option(
        "--scale",
        "factor",
        type=POSITIVE,
        metavar="F",
        show_default="1",
        help="Share of the paper's schedule to train for, as 0.1; every result records it.",
    ),
    TRAINING.option(
        "--epochs",
        type=COUNT,
        metavar="N",
        show_default="the paper's",
        help="Number of passes over the data, in place of --scale.",
    ),
    RUNTIME.option("--device", type=NameChoice(("cpu", "cuda")), default="cpu", help="Device that trains the network."),
    PRECISION.option(
        "--precision",
        type=NameChoice(("fp32", "bf16")),
        default="fp32",
        help="Precision of the convolutions; bf16 is faster on a GPU, and on a CPU with AMX.",
    ),
    threads_option,
    TRAINING.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Compile with TorchInductor, which needs a C++ compiler and takes half a minute or, for deep nets on a "
        "CPU, several minutes. Default: from 2,000 iterations on.",
    ),
    TRAINING.option(
        "--stop-after",
        "stop_after_s",
        type=FiniteFloat(min=1),
        metavar="S",
        show_default="never",
        help="Stop after S seconds with exit code 1; the same command then continues.",
    ),
    TRAINING.option(
        "--checkpoint-every",
        "checkpoint_every_s",
        type=FiniteFloat(min=0),
        default=30.0,
        metavar="S",
        help="Seconds between checkpoints, the most work that a kill may cost.",
    ),
    TRAINING.option(
        "--states",
        type=click.IntRange(0, 1000),
        default=0,
        metavar="N",
        help="Number of states of each network to keep along its training, for rbench paper gradients.",
    ),
)

findings_option = out_option(
    default=FOLDER, help="Folder for findings and pictures, with the training runs in it; it is created."
)
comparison_options = stack_options(
    seeds_option(default=1, help="Number of runs of each network."),
    TRAINING.option(
        "--so-far",
        is_flag=True,
        help="Train nothing: show the existing runs, up to the iteration that all have reached.",
    ),
    training_options,
    findings_option,
    terminal.debug_option,
)

COMPARED = ("networks", "network", "seeds", "so_far", "folder")
"""Parameters that have an effect with ``--so-far``, where nothing is trained."""

inspection_options = stack_options(
    data_options,
    size_option,
    DATA.option(
        "--mean",
        type=Numbers(),
        metavar="R,G,B",
        show_default="ImageNet's",
        help="Mean of the training images of a FILE for each channel, on a scale of 0 to 1.",
    ),
    DATA.option(
        "--std",
        type=Numbers(),
        metavar="R,G,B",
        show_default="ImageNet's",
        help="Standard deviation of the training images of a FILE for each channel, on the same scale.",
    ),
    findings_option,
    terminal.debug_option,
)


@click.group(
    cls=Group,
    heading=EXPERIMENTS,
    examples=("rbench paper degradation --scale 0.01", "rbench paper train resnet20 --data cifar-10.tar.gz"),
)
def paper() -> None:
    """Rerun the experiments of the ResNet paper on real data.

    The paper is Deep Residual Learning for Image Recognition (He et al. 2015, arXiv 1512.03385). Each experiment writes
    its findings as JSON and pictures into a folder, of which rbench report makes a page.
    """


@paper.command(
    examples=(
        "rbench paper train resnet20 --scale 0.1",
        "rbench paper train resnet56 --data cifar-10.tar.gz --device cuda",
    )
)
@variant_argument
@training_options
@TRAINING.option(
    "--recipe",
    type=NameChoice(("paper", "bundled")),
    default="paper",
    help="Training recipe: section 4.2 of the paper, or the recipe of the bundled weights.",
)
@MODEL.option(
    "--shortcut",
    type=NameChoice(("A", "B", "C")),
    show_default="the variant's",
    help="Shortcuts: zero padding (A), projection where dimensions change (B), or projection everywhere (C).",
)
@TRAINING.option(
    "--seed",
    type=SEED,
    default=0,
    metavar="N",
    help="Seed of the first weights and of the data order.",
)
@out_option(show_default=f"{FOLDER}/{RUNS}/VARIANT-seedN", help="Folder of the run; it is created.")
@terminal.debug_option
def train(variant: str, shortcut: Shortcut | None, seed: int, folder: Path | None, **options: Any) -> None:
    """Train VARIANT by the paper's recipe and print the path of its weights.

    rexport onnx --weights takes the file. The same command continues an interrupted run, and on a CPU gives the same
    bits as without the interruption.
    """
    from benchmarks.paper.experiments import study
    from benchmarks.paper.training.run import WEIGHTS, open_run
    from exporter.models import variants
    from runtimes.files import require_folder

    variant = variants.variant(variant).name
    if folder is None:
        folder = _run_folder(FOLDER, variant, shortcut, seed)
    else:
        require_folder(folder.parent)
    with terminal.reserve_stdout(), terminal.listening() as listener:
        study.train([(folder, variant, shortcut, seed)], _setup(**options), listener)
        run = open_run(folder)
        listener.notice(run.identity.recipe.describe())
        if run.step_s is not None and run.input_share is not None:
            listener.notice(
                f"an update takes {1e3 * run.step_s:.1f} ms, making its batch {run.input_share:.1%} of that"
            )
        listener.notice(study.export_command(folder, run))
    streams.print_path(folder / WEIGHTS)


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


@paper.command(
    examples=(
        "rbench paper degradation --scale 0.01",
        "rbench paper degradation --network plain20 --network resnet20 --seeds 3",
    )
)
@network_option("networks", multiple=True, default=FIGURE_NETWORKS, help="Network to train; repeatable.")
@comparison_options
def degradation(networks: tuple[str, ...], **options: Any) -> None:
    """Compare plain and residual nets of several depths (Figures 1 and 6)."""
    from benchmarks.paper.experiments import comparisons

    _compare([(name, None) for name in networks], comparisons.degradation_findings, **options)


@paper.command(examples=("rbench paper depth --scale 0.01", "rbench paper depth --seeds 3 --device cuda"))
@comparison_options
def depth(**options: Any) -> None:
    """Compare the ImageNet nets of 18 and 34 layers, plain and residual (Figure 4)."""
    from benchmarks.paper.experiments import comparisons

    _compare(comparisons.DEPTH_NETWORKS, comparisons.depth_findings, **options)


@paper.command(examples=("rbench paper shortcuts --scale 0.01", "rbench paper shortcuts --network resnet56 --seeds 3"))
@network_option(default="resnet20", help="Residual network to train.")
@comparison_options
def shortcuts(network: str, **options: Any) -> None:
    """Compare the shortcut options A, B and C of one network (Table 3)."""
    from benchmarks.paper.experiments import comparisons

    networks = [(network, option) for option in comparisons.SHORTCUT_OPTIONS]
    _compare(networks, comparisons.shortcuts_findings, **options)


@paper.command(
    examples=(
        "rbench paper responses paper-results/runs/resnet20-seed0",
        "rbench paper responses resnet56=resnet56.pth --data cifar-10.tar.gz",
    )
)
@runs_argument(required=True, metavar="RUN|VARIANT=FILE...")
@inspection_options
def responses(networks: tuple[str, ...], **options: Any) -> None:
    """Measure the standard deviation of the responses of each layer (Figure 7)."""
    from benchmarks.paper.experiments.inspection import layer_responses

    _examine(partial(layer_responses, networks), **options)


@paper.command(
    examples=(
        "rbench paper gradients --network plain56 --network resnet56",
        "rbench paper gradients paper-results/runs/resnet20-seed0 --images 128",
    )
)
@runs_argument(metavar="[RUN|VARIANT=FILE]...")
@network_option(
    "initial", multiple=True, default=INITIAL_NETWORKS, help="Network to examine as it is initialised; repeatable."
)
@seeds_option(default=2, help="Number of seeds of each initialised network.")
@DATA.option(
    "--images",
    type=click.IntRange(2, LARGEST_COUNT),
    show_default="64, or all test images if there are fewer",
    metavar="N",
    help="Number of images in the batch.",
)
@inspection_options
def gradients(
    networks: tuple[str, ...], initial: tuple[str, ...], seeds: int, images: int | None, **options: Any
) -> None:
    """Measure gradients by layer, with and without batch-norm and shortcuts.

    The networks are examined as they are initialised. Trained ones are examined too, and along their training if
    --states kept states of them.
    """
    from benchmarks.paper.experiments.inspection import layer_gradients

    _examine(partial(layer_gradients, networks, initial, seeds, images), **options)


@paper.command(
    examples=(
        "rbench paper identity plain20=plain20.pth",
        "rbench paper identity runs/plain20-seed0 runs/plain56-seed0",
    )
)
@runs_argument(required=True, metavar="RUN|VARIANT=FILE...")
@inspection_options
def identity(networks: tuple[str, ...], **options: Any) -> None:
    """Build a deeper network that computes what a trained shallower one does (section 1).

    With runs of two plain networks it also shows whether training the deeper one found as good a solution.
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
    from runtimes.files import require_folder
    from runtimes.folders import folder_to_fill

    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together", code="statistics-incomplete")
    moments = IMAGENET_MOMENTS if mean is None or std is None else (mean, std)
    require_folder(folder.parent)
    with folder_to_fill(folder):
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
    from exporter.models import variants
    from runtimes.files import require_folder

    networks = [(variants.variant(name).name, shortcut) for name, shortcut in networks]
    require_folder(folder.parent)
    if so_far:
        names = (param.name for param in click.get_current_context().command.params)
        announce_unused({"with --so-far": [name for name in names if name and name not in COMPARED]})
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
    streams.print_result(as_text(findings_document(findings)), newline=False)
    for path in paths:
        streams.print_path(path)
