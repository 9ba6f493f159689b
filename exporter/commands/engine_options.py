"""The options of ``rexport tensorrt``, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.command import ENGINE, RUNTIME, NameChoice, stack_options
from exporter.commands.options import force_option, given_options, out_option, require_device
from exporter.commands.values import COUNT, COUNT_OR_ZERO, DEVICE, OutputFile
from runtimes.artifacts.manifest import DEFAULT_OPT_LEVEL, HARDWARE_COMPAT, TILING
from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE, OPT_LEVELS
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.devices import CUDA, parse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.precision.spec import PrecisionSpec
    from exporter.targets.tensorrt_engine import EngineRequest
    from runtimes.artifacts.manifest import Profile

    Command = TypeVar("Command", bound=Callable[..., Any])

ENGINE_PARAMETERS = (
    "flavor", "min_batch", "opt_batch", "max_batch", "profile", "opt_level", "workspace", "timing_cache",
    "aux_streams", "tiling", "avg_timing", "sparse_weights",
    "hardware_compat", "version_compat", "strip_weights", "refit", "compute_capability", "device", "out", "force",
)  # fmt: skip
"""What ``engine_options`` call their values. The command's other options are the network's."""


def engine_options(command: Command) -> Command:
    """The options that say what engine is built."""
    return stack_options(
        ENGINE.option(
            "--flavor",
            type=NameChoice(("auto", *FLAVORS)),
            default="auto",
            help="Library that builds the engine: TensorRT, TensorRT-RTX, or the first of them that is installed.",
        ),
        ENGINE.option(
            "--min-batch",
            type=COUNT,
            metavar="N",
            show_default=str(DEFAULT_PROFILE.least),
            help="Smallest batch size that the engine takes.",
        ),
        ENGINE.option(
            "--opt-batch",
            type=COUNT,
            metavar="N",
            show_default=str(DEFAULT_PROFILE.best),
            help="Batch size that the engine is tuned for.",
        ),
        ENGINE.option(
            "--max-batch",
            type=COUNT,
            metavar="N",
            show_default=str(DEFAULT_PROFILE.most),
            help="Largest batch size of one call; larger batches are split.",
        ),
        ENGINE.option(
            "--profile",
            multiple=True,
            metavar="MIN:OPT:MAX",
            help="All three batch sizes at once, as 1:8:64. Repeatable: the engine then has several profiles.",
        ),
        ENGINE.option(
            "--opt-level",
            type=click.IntRange(OPT_LEVELS[0], OPT_LEVELS[-1]),
            metavar="N",
            default=DEFAULT_OPT_LEVEL,
            help="Effort of the search for fast kernels.",
        ),
        ENGINE.option(
            "--workspace", metavar="SIZE", show_default="all", help="GPU memory that kernels may use, as 4GiB."
        ),
        ENGINE.option(
            "--tiling",
            type=NameChoice(TILING),
            default="none",
            help="Effort of the search for tilings that keep data in the cache from layer to layer.",
        ),
        ENGINE.option(
            "--aux-streams",
            type=COUNT_OR_ZERO,
            metavar="N",
            show_default="chosen by the library",
            help="Most additional streams on which layers run at the same time.",
        ),
        ENGINE.option(
            "--sparse-weights", is_flag=True, help="Allow kernels for 2:4 sparse weights, for layers whose weights are."
        ),
        ENGINE.option(
            "--avg-timing",
            type=COUNT,
            metavar="N",
            show_default="chosen by the library",
            help="Runs that are averaged to time a kernel (TensorRT only).",
        ),
        ENGINE.option(
            "--timing-cache",
            type=OutputFile(),
            show_default="none",
            help="File that keeps the times of kernels from build to build (TensorRT only).",
        ),
        ENGINE.option(
            "--hardware-compat",
            type=NameChoice(HARDWARE_COMPAT),
            default="none",
            help="Other GPUs that the engine also runs on (TensorRT only).",
        ),
        ENGINE.option(
            "--version-compat", is_flag=True, help="Let later versions of TensorRT run the engine (TensorRT only)."
        ),
        ENGINE.option(
            "--strip-weights",
            is_flag=True,
            help="Leave the weights in the ONNX file, which must stay beside the engine. Needs a GPU.",
        ),
        ENGINE.option(
            "--refit", is_flag=True, help="Let rexport refit replace the weights of the engine, which can be slower."
        ),
        ENGINE.option(
            "--compute-capability",
            multiple=True,
            metavar="SM",
            show_default="all from 8.0",
            help="Compute capability to build for, as 8.6. Repeatable (TensorRT-RTX only).",
        ),
        RUNTIME.option(
            "--device",
            type=DEVICE,
            metavar="NAME",
            default=CUDA,
            help="GPU that the engine is built for and checked on: cuda for the first one, or cuda:N.",
        ),
        out_option(None, "beside ARTIFACT.onnx; else ./"),
        force_option,
    )(command)


def order(options: Mapping[str, Any]) -> EngineRequest:
    """What is asked for, of the values of ``engine_options``.

    Raises:
        UsageError: a value that means nothing, a device that is no GPU, or options that contradict each other.
        ResourceError: the folder of the timing cache is missing.
    """
    from exporter.targets.tensorrt_engine import EngineRequest
    from runtimes.backends.tensorrt.build_settings import Settings, parse_size, parse_target
    from runtimes.errors import UsageError
    from runtimes.files import require_folder

    device = parse_device(options["device"])
    if device.kind != CUDA:
        raise UsageError("an engine runs on GPUs only", code="engine-device-not-gpu", hint="--device cuda:N")
    if device.index:
        require_device(str(device))
    if options["timing_cache"] is not None:
        require_folder(options["timing_cache"].parent)
    return EngineRequest(
        flavor=options["flavor"],
        settings=Settings(
            profiles=profiles(options),
            opt_level=options["opt_level"],
            workspace_bytes=None if options["workspace"] is None else parse_size(options["workspace"]),
            hardware_compat=options["hardware_compat"],
            version_compat=options["version_compat"],
            strip_weights=options["strip_weights"],
            aux_streams=options["aux_streams"],
            tiling=options["tiling"],
            avg_timing=options["avg_timing"],
            sparse_weights=options["sparse_weights"],
            refit=options["refit"],
            targets=tuple(parse_target(text) for text in options["compute_capability"]),
            timing_cache=options["timing_cache"],
        ),
        out=options["out"],
        force=options["force"],
        device_index=device.index,
    )


def profiles(options: Mapping[str, Any]) -> tuple[Profile, ...]:
    """The profiles that are asked for; none where none of the options is given.

    What is not said of one is the default's, or as near to it as what is said allows.

    Raises:
        UsageError: no profile, two ways to say it, or one in the wrong order.
    """
    from runtimes.artifacts.manifest import Profile
    from runtimes.backends.tensorrt.build_settings import parse_profile
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


def is_artifact(source: str) -> bool:
    """Whether it names a file that is no checkpoint, and no variant or module; ``./resnet20`` is a file."""
    from exporter.models.factory import is_factory
    from exporter.models.variants import VARIANTS
    from exporter.weights.checkpoint import SUFFIXES, is_weights_file

    if (
        is_factory(source)
        or source.lower() in VARIANTS
        or not ("/" in source or "." in source or Path(source).exists())
    ):
        return False
    return not (is_weights_file(source) if Path(source).exists() else Path(source).suffix.lower() in SUFFIXES)


def refuse_network_options(context: click.Context) -> None:
    """An ONNX file is the network that it is.

    Raises:
        UsageError: an option was given that says which network to export.
    """
    from runtimes.errors import UsageError

    network = {parameter.name or "" for parameter in context.command.params} - {"source", *ENGINE_PARAMETERS}
    given = given_options(context, network)
    if given:
        raise UsageError(
            f"{', '.join(given)} would change the network, and an ONNX file has its own",
            code="network-options-unused",
            hint="leave it out, or name a variant or a checkpoint",
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
        max_drop=options["max_drop"],
        recipe=options["recipe"],
        float_layers=options["float_layers"],
        target="tensorrt" if precision(options["precision"]).calibrated else "cpu",
    )
