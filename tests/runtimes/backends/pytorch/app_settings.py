"""What apps may have set before a session launches, tried in a process each: ``python -m ... [newer-only]``.

PyTorch has settings that cannot be set back (the default of convolutions) and settings that only a later change of
their parent shows, so each case is tried in a fork of its own. Prints one line for each fault, and what was tried.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from runtimes.backends.pytorch.launch_settings import apply_launch_settings

BACKENDS: Any = torch.backends
CUDNN: Any = torch.backends.cudnn
MKLDNN: Any = torch.backends.mkldnn
MATMUL: Any = torch.backends.cuda.matmul
PLACES = {
    "all": BACKENDS,
    "cudnn": CUDNN,
    "matmul": MATMUL,
    "conv": CUDNN.conv,
    "rnn": CUDNN.rnn,
    "mkldnn": MKLDNN,
    "mkldnn.matmul": MKLDNN.matmul,
}

Setting = tuple[str, Any]
"""A place, or an older interface, and its value."""

APPS: tuple[tuple[Setting, ...], ...] = (
    (),
    (("matmul", "tf32"),),
    (("matmul", "tf32"), ("conv", "tf32"), ("rnn", "tf32")),
    (("matmul", "ieee"), ("conv", "ieee"), ("rnn", "ieee")),
    (("matmul", "none"),),
    (("conv", "ieee"),),
    (("all", "tf32"),),
    (("all", "ieee"),),
    (("cudnn", "tf32"),),
    (("cudnn", "ieee"),),
    (("mkldnn.matmul", "bf16"),),
    (("mkldnn", "bf16"),),
    (("older", "high"),),
    (("older", "medium"),),
    (("older", "high"), ("matmul", "ieee")),
    (("older", "high"), ("matmul", "none")),
    (("matmul", "tf32"), ("older", "high")),
    (("matmul", "tf32"), ("older", "highest")),
    (("allow matmul", True),),
    (("allow cudnn", False),),
    (("search", True),),
)

LATER = [
    *((name, word) for name in ("all", "cudnn", "mkldnn") for word in ("ieee", "tf32", "none")),
    ("older", "high"),
    ("older", "highest"),
]
"""What an app changes after a session: it must mean the same as if there had been none."""


def change(setting: Setting) -> None:
    """As an app does."""
    name, value = setting
    if name == "older":
        torch.set_float32_matmul_precision(value)
    elif name == "allow matmul":
        MATMUL.allow_tf32 = value
    elif name == "allow cudnn":
        CUDNN.allow_tf32 = value
    elif name == "search":
        CUDNN.benchmark = value
    else:
        PLACES[name].fp32_precision = value


def look() -> dict[str, object]:
    """All settings that can be read, and ``refused`` where PyTorch does not allow it."""
    older: dict[str, Callable[[], object]] = {
        "older": torch.get_float32_matmul_precision,
        "allow matmul": lambda: MATMUL.allow_tf32,
        "allow cudnn": lambda: CUDNN.allow_tf32,
    }
    seen: dict[str, object] = {name: place.fp32_precision for name, place in PLACES.items()}
    for name, read in older.items():
        try:
            seen[name] = read()
        except RuntimeError:
            seen[name] = "refused"
    return {**seen, "search": CUDNN.benchmark}


def history() -> list[dict[str, object]]:
    """The settings now, and after each later change of the app."""
    seen = [look()]
    for setting in LATER:
        change(setting)
        seen.append(look())
    return seen


@contextmanager
def newer_only(tf32: bool, _: bool) -> Iterator[None]:
    """What would be done by one who knows only the newer interface."""
    before = [place.fp32_precision for place in (MATMUL, CUDNN.conv)]
    for place in (MATMUL, CUDNN.conv):
        place.fp32_precision = "tf32" if tf32 else "ieee"
    yield
    for place, value in zip((MATMUL, CUDNN.conv), before, strict=True):
        place.fp32_precision = value


def find_faults(
    app: tuple[Setting, ...], tf32: bool, apply: Callable[[bool, bool], AbstractContextManager[None]]
) -> set[str]:
    """What is wrong inside a session's launches, or afterwards; the process cannot be used for anything else then."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        for setting in app:
            change(setting)
        os.write(writer, repr(history()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    expected = ast.literal_eval(os.read(reader, 1 << 16).decode())
    for setting in app:
        change(setting)
    for _ in range(2):
        with apply(tf32, True):
            inside = look()
    word = "tf32" if tf32 else "ieee"
    faults = {f"{name}-inside" for name in ("cudnn", "matmul", "conv", "rnn") if inside[name] != word}
    faults |= {"older-inside"} if (inside["older"] == "highest") is tf32 or inside["older"] == "refused" else set()
    faults |= {"allow-inside"} if inside["allow matmul"] is not tf32 else set()
    faults |= {"search-inside"} if not inside["search"] else set()
    return faults | ({"not-restored"} if history() != expected else set())


def tell(*words: object) -> None:
    """A line, which a fork writes before it ends."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Try all apps with both precisions."""
    warnings.simplefilter("error")
    apply = newer_only if "newer-only" in sys.argv else apply_launch_settings
    tried = 0
    for app in APPS:
        for tf32 in (True, False):
            if (child := os.fork()) == 0:
                for fault in sorted(find_faults(app, tf32, apply)):
                    tell("fault", fault, app, tf32)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                tell("fault died", app, tf32)
            tried += 1
    tell("tried", tried, torch.__version__)


if __name__ == "__main__":
    main()
