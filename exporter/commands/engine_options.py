"""The options of ``rexport tensorrt``, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.options import stack_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.precision.spec import PrecisionSpec
    from exporter.targets.tensorrt_engine import EngineRequest
    from runtimes.artifacts.manifest import Profile

    Command = TypeVar("Command", bound=Callable[..., Any])

FLAVOR_NAMES = ("tensorrt", "rtx")
"""Those of ``runtimes.backends.tensorrt.flavors.FLAVORS``, whose module is too heavy for ``--help``."""

HARDWARE_COMPAT = ("none", "ampere+", "same-cc")
"""That of ``runtimes.backends.tensorrt.build_settings``, likewise."""

ENGINE = (
    "flavor", "min_batch", "opt_batch", "max_batch", "profile", "opt_level", "workspace", "timing_cache",
    "hardware_compat", "version_compat", "strip_weights", "compute_capability", "out", "force",
)  # fmt: skip
"""What ``engine_options`` call their values. The command's other options are the network's."""


def engine_options(command: Command) -> Command:
    """The options that say what engine is built."""
    return stack_options(
        click.option(
            "--flavor",
            type=click.Choice(["auto", *FLAVOR_NAMES]),
            default="auto",
            show_default=True,
            help="TensorRT or TensorRT-RTX; auto is the first that is installed.",
        ),
        click.option(
            "--min-batch", type=click.IntRange(1), metavar="N", help="Images in one call, least.  [default: 1]"
        ),
        click.option("--opt-batch", type=click.IntRange(1), metavar="N", help="Most often: tuned for.  [default: 8]"),
        click.option("--max-batch", type=click.IntRange(1), metavar="N", help="Most; more are split.  [default: 64]"),
        click.option(
            "--profile",
            multiple=True,
            metavar="MIN:OPT:MAX",
            help="The three in one; several make an engine with several profiles.",
        ),
        click.option(
            "--opt-level",
            type=click.IntRange(0, 5),
            metavar="0-5",
            default=3,
            show_default=True,
            help="How long to look for fast kernels.",
        ),
        click.option("--workspace", metavar="SIZE", help="GPU memory for kernels, as 4GiB.  [default: all]"),
        click.option(
            "--timing-cache",
            type=click.Path(path_type=Path, dir_okay=False),
            help="File that remembers kernels' times from build to build (tensorrt).",
        ),
        click.option(
            "--hardware-compat",
            type=click.Choice(HARDWARE_COMPAT),
            default="none",
            show_default=True,
            help="Other GPUs to run on than this one (tensorrt).",
        ),
        click.option("--version-compat", is_flag=True, help="Let later versions of the library run it (tensorrt)."),
        click.option(
            "--strip-weights", is_flag=True, help="Leave the weights in the ONNX file beside it; needs a GPU."
        ),
        click.option(
            "--compute-capability",
            multiple=True,
            metavar="SM",
            help="GPUs to build for, as 8.6; several may be named (rtx).  [default: all from 8.0]",
        ),
        click.option(
            "-o",
            "--out",
            help="File, or folder with a slash at its end.  [default: beside ARTIFACT; ./ for VARIANT]",
        ),
        click.option("--force", is_flag=True, help="Replace the files if they are there."),
    )(command)


def order(options: Mapping[str, Any]) -> EngineRequest:
    """What is asked for, of the values of ``engine_options``.

    Raises:
        UsageError: a value that means nothing, or options that contradict each other.
    """
    from exporter.targets.tensorrt_engine import EngineRequest
    from runtimes.backends.tensorrt.build_settings import Settings, parse_size, parse_target

    return EngineRequest(
        flavor=options["flavor"],
        settings=Settings(
            profiles=profiles(options),
            opt_level=options["opt_level"],
            workspace_bytes=None if options["workspace"] is None else parse_size(options["workspace"]),
            hardware_compat=options["hardware_compat"],
            version_compat=options["version_compat"],
            strip_weights=options["strip_weights"],
            targets=tuple(parse_target(text) for text in options["compute_capability"]),
            timing_cache=options["timing_cache"],
        ),
        out=options["out"],
        force=options["force"],
    )


def profiles(options: Mapping[str, Any]) -> tuple[Profile, ...]:
    """The profiles that are asked for; none where none of the options is given.

    What is not said of one is the default's, or as near to it as what is said allows.

    Raises:
        UsageError: no profile, two ways to say it, or one in the wrong order.
    """
    from runtimes.artifacts.manifest import Profile
    from runtimes.backends.tensorrt.build_settings import parse_profile
    from runtimes.backends.tensorrt.builder import DEFAULT_PROFILE
    from runtimes.errors import UsageError

    least, best, most = (options[name] for name in ("min_batch", "opt_batch", "max_batch"))
    if least is None and best is None and most is None:
        return tuple(parse_profile(text) for text in options["profile"])
    if options["profile"]:
        raise UsageError(
            "--profile says what --min-batch, --opt-batch and --max-batch say",
            code="profile-given-twice",
            hint="give one of them",
        )
    highest = most or max(DEFAULT_PROFILE.most, best or 0, least or 0)
    lowest = least or DEFAULT_PROFILE.least
    return (Profile(lowest, best or min(max(DEFAULT_PROFILE.best, lowest), highest), highest),)


def is_file(source: str) -> bool:
    """Whether it names a file and no variant, known or not; ``./resnet20`` is a file."""
    from exporter.models.variants import VARIANTS

    return source not in VARIANTS and ("/" in source or "." in source or Path(source).exists())


def refuse_network_options(context: click.Context) -> None:
    """An ONNX file is the network that it is.

    Raises:
        UsageError: an option was given that says which network to export.
    """
    from runtimes.errors import UsageError

    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in ("source", *ENGINE)
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)} would change the network, and an ONNX file has its own",
            code="network-options-unused",
            hint="leave it out, or name a variant",
        )


def check_batch(options: Mapping[str, Any]) -> None:
    """Raises UsageError where a fixed batch and profiles are asked for."""
    from runtimes.errors import UsageError

    if options["batch"] is not None and profiles(options):
        raise UsageError(
            f"--batch {options['batch']} fixes the number of images, so that no profile goes with it",
            code="batch-excludes-profiles",
            hint="leave one of them out",
        )


def precision_spec(options: Mapping[str, Any]) -> PrecisionSpec:
    """How the ONNX file is typed: int8 by the recipe that TensorRT takes.

    Raises:
        UsageError: as ``PrecisionSpec``.
    """
    from exporter.precision.spec import PrecisionSpec
    from exporter.precision.table import precision

    return PrecisionSpec(
        precision=options["precision"],
        calibration=options["calibration"],
        calibration_images=options["calibration_images"],
        gate_images=options["gate_images"],
        target="tensorrt" if precision(options["precision"]).calibrated else "cpu",
    )
