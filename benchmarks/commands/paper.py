"""``rbench paper``: the experiments of He et al. 2015, rerun. Everything heavy is imported late."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from benchmarks.options import stacked
from exporter import terminal

if TYPE_CHECKING:
    from benchmarks.paper.curves import Curves
    from benchmarks.paper.findings import Findings
    from benchmarks.paper.study import Setup
    from exporter.variants import Variant

    Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS = {"help_option_names": ["-h", "--help"]}
FOLDER = Path("paper-results")
"""Where the experiments put what they find."""

RUNS = "runs"
"""In it: a folder for each training run."""

data_options = stacked(
    click.option(
        "--data",
        "train_data",
        default="fashion-mnist",
        show_default=True,
        metavar="NAME|DIR|FILE",
        help="Training images: fashion-mnist (Debian's dataset-fashion-mnist), fashion-mnist-sample (1,000 that come "
        "with rexport), or a folder or archive with CIFAR-10 or one folder a class.",
    ),
    click.option("--test-data", metavar="DIR|FILE", help="Test images, if they lie elsewhere."),
    click.option("--data-name", metavar="TEXT", help="What results call the data. Default: its own name."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take N training and N test images at most."),
)

training_options = stacked(
    data_options,
    click.option(
        "--size",
        type=click.IntRange(min=8),
        default=32,
        show_default=True,
        metavar="N",
        help="Pixels of the network's input; image files are resized to it.",
    ),
    click.option(
        "--scale",
        "factor",
        type=click.FloatRange(min=0, min_open=True),
        metavar="F",
        help="Shorten the whole schedule to this share; every result says so. [1]",
    ),
    click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="The same, as passes over the data."),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of the convolutions; bf16 pays on a GPU, and on a processor with AMX or AVX-512 BF16.",
    ),
    click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Default: all that this process may use."),
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="With TorchInductor, which takes half a minute and a C++ compiler. Default: from 2,000 iterations on.",
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
        show_default=True,
        metavar="S",
        help="Seconds of work that a kill may cost.",
    ),
)

out_option = click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDER,
    show_default=True,
    metavar="DIR",
    help="For findings and pictures, and the training runs in it.",
)
so_far_option = click.option(
    "--so-far", is_flag=True, help="Train nothing: what the runs show as they are, up to where all of them have come."
)
seeds_option = click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N", help="Runs of each network."
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
    show_default=True,
    help="Section 4.2 of the paper; or what the bundled weights were trained by.",
)
@click.option("--shortcut", type=click.Choice(["A", "B", "C"]), help="Default: that of the variant.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N")
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=f"Of the run. Default: {FOLDER}/{RUNS}/VARIANT-seedN.",
)
@terminal.debug_option
def train(variant: str, shortcut: str | None, seed: int, folder: Path | None, **options: Any) -> None:
    """Train VARIANT by the paper's recipe. Prints the path of the weights, which rexport onnx --weights takes.

    The same command goes on where it was interrupted, and on a CPU ends in the same bits.
    """
    from benchmarks.paper import study
    from benchmarks.paper.runs import WEIGHTS, opened

    folder = FOLDER / RUNS / _run_name(variant, shortcut, seed) if folder is None else folder
    with terminal.stdout_reserved(), terminal.listening() as listener:
        study.train([(folder, variant, shortcut, seed)], _setup(**options), listener)
        run = opened(folder)
        listener.notice(study.export_command(folder, run, WEIGHTS))
    click.echo(folder / WEIGHTS)


def _run_name(variant: str, shortcut: str | None, seed: int) -> str:
    option = "" if shortcut is None else f"-{shortcut}"
    return f"{variant}{option}-seed{seed}"


def _setup(**options: Any) -> Setup:
    from benchmarks.paper.corpus import Source
    from benchmarks.paper.driving import Pace
    from benchmarks.paper.study import Setup

    source = Source(
        options.pop("train_data"),
        options.pop("test_data"),
        options.pop("data_name"),
        options.pop("limit"),
        options.pop("size"),
    )
    pace = Pace(options.pop("stop_after_s"), options.pop("checkpoint_every_s"))
    return Setup(source, pace=pace, **options)


def _network_option(default: Sequence[str]) -> Callable[[Command], Command]:
    return click.option(
        "--network",
        "networks",
        multiple=True,
        default=default,
        show_default=True,
        metavar="VARIANT",
        help="To train; repeatable.",
    )


@paper.command(context_settings=SETTINGS)
@_network_option(("plain20", "plain56", "resnet20", "resnet56"))
@seeds_option
@so_far_option
@training_options
@out_option
@terminal.debug_option
def degradation(networks: tuple[str, ...], seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """Plain nets against residual nets of several depths: the paper's Figures 1 and 6."""
    from benchmarks.paper import degradation as experiment

    _compare([(name, None) for name in networks], seeds, folder, options, experiment.findings, so_far)


@paper.command(context_settings=SETTINGS)
@seeds_option
@so_far_option
@training_options
@out_option
@terminal.debug_option
def depth(seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """ImageNet's nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4."""
    from benchmarks.paper import depth as experiment

    _compare([(name, "A") for name in experiment.VARIANTS], seeds, folder, options, experiment.findings, so_far)


@paper.command(context_settings=SETTINGS)
@click.option("--network", default="resnet20", show_default=True, metavar="VARIANT", help="A residual net.")
@seeds_option
@so_far_option
@training_options
@out_option
@terminal.debug_option
def shortcuts(network: str, seeds: int, so_far: bool, folder: Path, **options: Any) -> None:
    """Shortcut options A, B and C of one network: the paper's Table 3."""
    from benchmarks.paper import shortcuts as experiment

    _compare([(network, option) for option in "ABC"], seeds, folder, options, experiment.findings, so_far)


def _compare(
    networks: Sequence[tuple[str, str | None]],
    seeds: int,
    folder: Path,
    options: dict[str, Any],
    experiment: Callable[[Sequence[Curves], str], Findings],
    so_far: bool,
) -> None:
    """Trains what is not trained yet, and says what is found."""
    from benchmarks.paper import curves, study

    wanted = [
        (folder / RUNS / _run_name(name, option, seed), name, option, seed)
        for seed in range(seeds)
        for name, option in networks
    ]
    label = _with_option if len({name for name, _ in networks}) < len(networks) else _plain_name
    with terminal.stdout_reserved(), terminal.listening() as listener:
        folders = tuple(run for run, *_ in wanted) if so_far else study.train(wanted, _setup(**options), listener)
        found = curves.gathered(folders, label, so_far)
        findings, paths = _kept(experiment(found, _command()), folder)
    _say(findings, paths)


def _plain_name(variant: Variant) -> str:
    return variant.name


def _with_option(variant: Variant) -> str:
    return f"{variant.name}, option {variant.shortcut}"


def _command() -> str:
    return shlex.join(["rbench", *sys.argv[1:]])


def _kept(findings: Findings, folder: Path) -> tuple[Findings, tuple[Path, ...]]:
    """Writes findings and pictures into the folder."""
    from benchmarks.paper import drawing
    from benchmarks.paper import findings as files

    return findings, (files.write(findings, folder), *drawing.write_pictures(findings, folder))


def _say(findings: Findings, paths: tuple[Path, ...]) -> None:
    from benchmarks.paper import view

    for line in view.lines(findings):
        click.echo(line)
    click.echo()
    for path in paths:
        click.echo(path)
