"""The public surface of TensorRT's Python bindings: every class, member and signature, as the bindings state them.

The libraries that the bindings load cannot be installed without NVIDIA's own package index, but the bindings can, and
they import over libraries that are empty but for the symbols they ask for. So the names and signatures are the true
ones, on any machine. To write the two files that lie beside this program again (it needs a C compiler)::

    for version in 10.16.1.11 11.4.0.106; do
        pip download --no-deps --dest wheels tensorrt-cu13-bindings==$version
        pip install --no-deps --target bindings/$version wheels/tensorrt_cu13_bindings-$version-*.whl
    done
    python -m tests.bindings.tensorrt.surface bindings/10.16.1.11 bindings/11.4.0.106

What is kept are facts of an interface: names, and how each is called. No word of the documentation is.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TypeAlias

FOLDER = Path(__file__).parent
RECORDED = ("10.16.1.11", "11.4.0.106")
"""The releases whose surfaces lie beside this program."""

Members: TypeAlias = dict[str, list[str]]

PROPERTY, VALUE = "property", "value"
"""What stands in place of a signature: ``property -> int`` is one that is read only, ``property = int`` one that can
be set, ``value`` one of an enumeration's."""


@dataclass(frozen=True)
class Surface:
    """Of one release. ``classes`` are name -> member -> signatures, of which an overloaded member has several;
    ``functions`` name -> signatures."""

    version: str
    classes: dict[str, Members]
    functions: Members

    @cached_property
    def owners(self) -> dict[str, list[str]]:
        """The classes that have a member of a name."""
        found: dict[str, list[str]] = {}
        for name, members in self.classes.items():
            for member in members:
                found.setdefault(member, []).append(name)
        return found


def recorded(version: str) -> Surface:
    """The surface that was written for the release."""
    return Surface(**json.loads(_place(version).read_text(encoding="utf-8")))


def _place(version: str) -> Path:
    return FOLDER / f"surface-{version}.json"


def read(module: ModuleType) -> Surface:
    """The surface of bindings that are imported: ``tensorrt``, ``tensorrt_bindings`` or ``tensorrt_rtx``."""
    classes: dict[str, Members] = {}
    functions: Members = {}
    for name in sorted(vars(module)):
        value = getattr(module, name)
        if name.startswith("_"):
            continue
        if isinstance(value, type) and "tensorrt" in value.__module__:
            classes[name] = _members(value)
            for inner, nested in vars(value).items():  # ILogger.Severity
                if isinstance(nested, type) and not inner.startswith("_"):
                    classes[f"{name}.{inner}"] = _members(nested)
        elif isinstance(value, BuiltinFunctionType):
            functions[name] = _signatures(name, value.__doc__)
        elif isinstance(value, FunctionType):
            functions[name] = [f"{name}{inspect.signature(value)}"]
    return Surface(str(vars(module)["__version__"]), classes, functions)


def _members(kind: type) -> Members:
    names = [name for name in dir(kind) if not name.startswith("_") or name in _SPECIAL]
    return {name: _described(kind, name) for name in sorted(names)}


_SPECIAL = ("__init__", "__getitem__", "__len__", "__iter__", "__enter__", "__exit__")
"""Also kept, of the names that begin with an underscore: those that Python's own syntax calls."""


def _described(kind: type, name: str) -> list[str]:
    found = next(vars(base)[name] for base in kind.__mro__ if name in vars(base))
    if isinstance(found, property):
        (getter,) = _signatures(name, found.fget.__doc__) or [""]
        gives = getter.rpartition(" -> ")[2] or "object"
        return [f"{PROPERTY} = {gives}" if found.fset else f"{PROPERTY} -> {gives}"]
    if isinstance(getattr(kind, name), kind) or isinstance(found, type):
        return [VALUE]
    return _signatures(name, getattr(kind, name).__doc__)


def _signatures(name: str, text: str | None) -> list[str]:
    """The calls that pybind11 states at the top of a docstring, with the module's own name left out."""
    lines = (text or "").splitlines()
    found = [line for line in lines if re.match(rf"(\d+\. )?({re.escape(name)})?\(", line)]
    calls = [line.split(". ", 1)[-1] if line[0].isdigit() else line for line in found]
    return [_plain(call) for call in calls if "(*args, **kwargs)" not in call or len(calls) == 1]


def _plain(call: str) -> str:
    call = re.sub(r"\btensorrt(?:_rtx)?_bindings\.tensorrt(?:_rtx)?\.", "", call)
    call = re.sub(r"<([\w.]+): -?\d+>", r"\1", call)  # the value of an enumeration, as a default
    call = re.sub(r"<[^<>]*>", "...", call)
    call = re.sub(r"\b(typing_extensions|typing|collections\.abc)\.", "", call)
    return call.replace("::", ".").strip()


@dataclass(frozen=True)
class Parameters:
    """How one signature is called, ``self`` left out: the names in their order, and those that have no default."""

    names: tuple[str, ...]
    needed: tuple[str, ...]
    anything: bool

    @classmethod
    def of(cls, signature: str) -> Parameters:
        """Takes ``name(self: Builder, flags: SupportsInt = 0) -> INetworkDefinition`` apart."""
        inside = signature.partition("(")[2].rpartition(")")[0]
        parts = [part.strip() for part in _split(inside) if part.strip() not in ("", "/", "*")]
        plain = [part for part in parts if not part.startswith(("*", "self:")) and part != "self"]
        names = {re.split(r"[:=]", part)[0].strip(): "=" in part for part in plain}
        return cls(
            names=tuple(names),
            needed=tuple(name for name, optional in names.items() if not optional),
            anything=any(part.startswith("*") for part in parts),
        )

    def takes(self, positional: int, keywords: tuple[str, ...]) -> bool:
        """Whether a call with so many positional arguments and these keywords fits."""
        if self.anything:
            return True
        if positional > len(self.names) or any(name not in self.names[positional:] for name in keywords):
            return False
        return {*self.names[:positional], *keywords} >= set(self.needed)


def _split(parameters: str) -> list[str]:
    """At the commas that are not inside brackets."""
    parts, depth = [""], 0
    for letter in parameters:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
)
"""That the bindings take from the libraries; each answers null."""


def write_stubs(folder: Path, release: int) -> None:
    """Puts empty libraries beside the bindings in ``folder``, where there are none."""
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _SYMBOLS), encoding="utf-8")
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        target = folder / f"lib{library}.so.{release}"
        if not target.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source], check=True)
    source.unlink()


def write(folder: Path) -> Path:
    """Reads the bindings installed in ``folder``, in a process of their own, and writes their surface."""
    (about,) = folder.glob("tensorrt_cu*_bindings-*.dist-info")
    write_stubs(folder / "tensorrt_bindings", int(about.name.split("-")[1].split(".")[0]))
    code = (
        "import dataclasses, json, tensorrt_bindings\n"
        "from tests.bindings.tensorrt import surface\n"
        "print(json.dumps(dataclasses.asdict(surface.read(tensorrt_bindings))))\n"
    )
    root = FOLDER.parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder.resolve()), str(root)))}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = Surface(**json.loads(result.stdout))
    place = _place(found.version)
    place.write_text(dumped(found), encoding="utf-8")
    return place


def dumped(surface: Surface) -> str:
    """The JSON text, a member a line."""
    lines = [f'{{"version": {json.dumps(surface.version)},', '"classes": {']
    for name, members in surface.classes.items():
        rows = [f"  {json.dumps(member)}: {json.dumps(calls)}" for member, calls in members.items()]
        end = "" if name == list(surface.classes)[-1] else ","
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(rows) + f"}}{end}")
    rows = [f" {json.dumps(name)}: {json.dumps(calls)}" for name, calls in surface.functions.items()]
    return "\n".join(lines) + '},\n"functions": {\n' + ",\n".join(rows) + "}}\n"


if __name__ == "__main__":
    for place in sys.argv[1:]:
        print(write(Path(place)))  # noqa: T201
