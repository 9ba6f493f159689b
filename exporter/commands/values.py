"""What options and arguments take: names that a shell can complete, sizes, and lists of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.commands.command import NameChoice
from runtimes.arguments import LARGEST_COUNT, LARGEST_SEED
from runtimes.devices import AUTO, CUDA, KINDS, join_devices, parse_device, parse_devices
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from runtimes.labelling.label import ErrorLimit
    from runtimes.labelling.rayaddress import RayAddress


class Name(click.ParamType[str]):
    """A name of a table, which is read only when a shell asks for it; or also the path of a file."""

    name = "name"

    def __init__(self, known: Callable[[], Iterable[str]], or_file: bool = False) -> None:
        self._known = known
        self._or_file = or_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in self._known() if name.startswith(incomplete.lower())]
        # A shell that takes both shows names and files; bash shows files where no name begins like this.
        return [CompletionItem(incomplete, type="file"), *names] if self._or_file else names


def _variants() -> Iterable[str]:
    from exporter.models.variants import VARIANTS

    return VARIANTS


def _backends() -> Iterable[str]:
    from runtimes.backends.registry import available_backends

    return [backend.name for backend in available_backends()]


def _datasets() -> Iterable[str]:
    from exporter.data.opening import BUNDLED_NAME, CIFAR_NAME

    return BUNDLED_NAME, f"{CIFAR_NAME}:"


def _origins() -> Iterable[str]:
    from exporter.weights.sources import ORIGINS

    return ORIGINS


class BackendName(Name):
    """A backend's name or alias, in any case, as the name; an unknown one stays as it is, for the command to refuse."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        from runtimes.backends.registry import find_backend

        try:
            return find_backend(value).name
        except UsageError:
            return str(value)


VARIANT = Name(_variants)
VARIANT_OR_FILE = Name(_variants, or_file=True)
BACKEND = BackendName(_backends)
DATASET = Name(_datasets, or_file=True)
WEIGHTS = Name(_origins, or_file=True)

COUNT = click.IntRange(1, LARGEST_COUNT)
COUNT_OR_ZERO = click.IntRange(0, LARGEST_COUNT)
SEED = click.IntRange(0, LARGEST_SEED)


def read_count(text: str) -> int | None:
    """The number in digits, from 0 to ``LARGEST_COUNT``; ``None`` for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > len(str(LARGEST_COUNT)):
        return None
    number = int(text)
    return number if number <= LARGEST_COUNT else None


class OutputPath(click.Path):
    """The path of a file or folder to write. ``-`` is standard output where ``allow_dash`` is true, else refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == "-" and not self.allow_dash:
            self.fail("'-' is standard output, which this option does not write to: name a path, as ./-", param, ctx)
        return super().convert(value, param, ctx)


class OutputFile(OutputPath):
    """The path of a file to write. A folder is refused, and a name that ends in a slash, which means a folder."""

    def __init__(self, allow_dash: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=False, allow_dash=allow_dash)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a folder: name a file", param, ctx)
        return super().convert(value, param, ctx)


class Size(click.ParamType[tuple[int, int]]):
    """``N`` or ``HxW`` in pixels."""

    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        sides = [read_count(part) for part in str(value).lower().split("x")]
        height, width = sides[0], sides[-1]
        if len(sides) > 2 or height is None or width is None:
            self.fail(f"{value!r} is neither a number of pixels nor HEIGHTxWIDTH, as 224 or 192x256", param, ctx)
        return height, width


class Sizes(click.ParamType[tuple[tuple[int, int], ...]]):
    """One or several of ``Size``, separated by commas."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        return tuple(Size().convert(part, param, ctx) for part in str(value).split(","))


class Resize(click.ParamType["int | tuple[int, int]"]):
    """``N`` pixels of the shorter side, or ``HxW`` in pixels."""

    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, int]:
        height, width = Size().convert(value, param, ctx)
        return (height, width) if "x" in str(value).lower() else height


class Names(click.ParamType[tuple[str, ...]]):
    """Some of a few words, separated by commas."""

    name = "names"

    def __init__(self, words: Iterable[str]) -> None:
        self._word = NameChoice(tuple(words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(self._word.convert(word.strip(), param, ctx) for word in str(value).split(","))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self._word.shell_complete(ctx, param, incomplete)


class FiniteFloat(click.FloatRange):
    """A finite number within bounds. click's own types take NaN within all bounds, and infinity where there is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Numbers(click.ParamType[tuple[float, ...]]):
    """One number a channel, separated by commas."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not a list of finite numbers, as 0.485,0.456,0.406", param, ctx)
        return numbers


class _ErrorLimitType(click.ParamType["ErrorLimit"]):
    """A number of images, or a share of them in percent: ``100`` or ``0.5%``."""

    name = "N|PERCENT%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ErrorLimit:
        from runtimes.labelling.label import ErrorLimit

        text, is_share = str(value).removesuffix("%"), str(value).endswith("%")
        try:
            return ErrorLimit(float(text) / 100 if is_share else int(text), is_share)
        except (ValueError, UsageError):
            self.fail(f"{value!r} is neither a number of images nor a share of them, as 100 or 0.5%", param, ctx)


ERROR_LIMIT = _ErrorLimitType()


class _RayAddressType(click.ParamType["RayAddress"]):
    """The address of a Ray cluster: ``local``, ``auto`` or ``HOST:PORT``."""

    name = "local|auto|HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RayAddress:  # noqa: ARG002
        from runtimes.labelling.rayaddress import RayAddress

        return RayAddress.parse(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in ("local", "auto") if word.startswith(incomplete)]


RAY_ADDRESS = _RayAddressType()


class DeviceParam(click.ParamType[str]):
    """A device: ``cpu``, ``cuda`` or ``cuda:N``; where allowed, also ``auto``, or several separated by commas."""

    def __init__(self, auto: bool = False, several: bool = False) -> None:
        self._words = (*KINDS, AUTO) if auto else KINDS
        self._several = several
        self.name = "cpu|cuda|cuda:N" + ("|auto" if auto else "") + ("[,...]" if several else "")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        if text == AUTO and AUTO in self._words:
            return text
        try:
            devices = parse_devices(text) if self._several else (parse_device(text),)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return join_devices(devices)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.lower().rpartition(",") if self._several else ("", "", incomplete.lower())
        words = [*self._words, *(_gpus() if last.startswith(CUDA) else ())]
        return [CompletionItem(f"{before}{comma}{word}") for word in words if word.startswith(last)]


def _gpus() -> Iterable[str]:
    from runtimes.tensors import cuda

    return [] if cuda.missing() is not None else [f"{CUDA}:{number}" for number in range(cuda.count())]


DEVICE = DeviceParam()
DEVICE_OR_AUTO = DeviceParam(auto=True)
DEVICES = DeviceParam(several=True)


class BatchSize(click.ParamType["int | None"]):
    """``dynamic`` or a fixed number of images."""

    name = "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "dynamic":
            return None
        number = read_count(str(value))
        if not number:
            self.fail(f"{value!r} is neither 'dynamic' nor a number of images from 1 to {LARGEST_COUNT}", param, ctx)
        return number


class CountRange(click.ParamType[tuple[int, int]]):
    """``N``, or ``N..M`` with the smallest and the largest number, from 1."""

    name = "N|N..M"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        first, dots, last = str(value).partition("..")
        least = read_count(first)
        most = read_count(last) if dots else least
        if not least or not most or least > most:
            self.fail(f"{value!r} is neither a number from 1 nor a range such as 1..3", param, ctx)
        return least, most
