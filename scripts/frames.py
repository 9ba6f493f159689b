"""The way from ``rbench run`` to the timed call: how many frames of our own it has, and how many types a reader meets.

``python -m scripts.frames [--root FOLDER]`` runs a real ``rbench run`` on a file of the fake backend and writes down
two stacks: in the parent that of ``Worker.turn``, which sends a turn to a worker, and in the worker that of a call that
is timed in such a turn. A frame counts if its code lies in one of our packages and is a function; modules do not count.

The types are read off the source of these functions: the classes of our packages that stand in their annotations, that
their bodies construct, and to which they belong, with what those are made from. Errors do not count.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("benchmarks", "exporter", "runtimes")

MOST_FRAMES, MOST_TYPES = 19, 30

SCRIPT = {
    "fake": 1,
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
    "delays_s": [0.001],
}
"""A file of the fake backend, whose calls sleep for a millisecond."""

HOOK = """
import os, selectors, sys, time

def record(place, last):
    stack, frame = [], sys._getframe(2)
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_firstlineno, frame.f_code.co_qualname))
        frame = frame.f_back
    names = [name for _, _, name in stack]
    if last not in names or place == "worker" and "Clocks.turn" not in names:
        return
    stack = stack[names.index(last):]
    try:
        with open(os.path.join(os.environ["FRAMES_FOLDER"], place), "x") as file:
            file.writelines("\\t".join(map(str, entry)) + "\\n" for entry in reversed(stack))
    except FileExistsError:
        pass

def selector(*arguments, real=selectors.DefaultSelector):
    record("parent", "Worker.turn")
    return real(*arguments)

def sleep(seconds, real=time.sleep):
    record("worker", "FakeSession.run")
    real(seconds)

selectors.DefaultSelector, time.sleep = selector, sleep
"""
"""Runs in each process as it starts: ``Worker.turn`` waits with a selector, and a call of the fake backend sleeps."""


@dataclass(frozen=True)
class Frame:
    """A function of ours on a stack. ``path`` is relative to the root of the code base."""

    path: Path
    line: int
    name: str


@dataclass(frozen=True)
class Way:
    """Both stacks, from the outermost frame to the innermost, and the types."""

    parent: tuple[Frame, ...]
    worker: tuple[Frame, ...]
    types: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many there are in both."""
        return len(self.parent) + len(self.worker)


def walk(root: Path) -> Way:
    """The way in the code base at ``root``. Blocks for seconds.

    Raises:
        RuntimeError: the run failed, or did not come by the places that are watched.
    """
    with tempfile.TemporaryDirectory(prefix="frames-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        (folder / "script.fake").write_text(json.dumps(SCRIPT), encoding="utf-8")
        options = ("--duration", "0.05", "--processes", "1", "--rounds", "2", "--no-roofline")
        done = subprocess.run(
            (sys.executable, "-m", "benchmarks.cli", "run", str(folder / "script.fake"), *options),
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{folder}", "FRAMES_FOLDER": name},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        stacks = [folder / "parent", folder / "worker"]
        if done.returncode != 0 or not all(stack.exists() for stack in stacks):
            raise RuntimeError(f"rbench run ended with exit code {done.returncode}: {done.stderr[-500:]}")
        parent, worker = (tuple(_read_frames(stack, root)) for stack in stacks)
    if not (parent and worker):
        raise RuntimeError(f"no function on the stacks lies below {root}")
    return Way(parent, worker, tuple(sorted(_types(root, (*parent, *worker)))))


def _read_frames(stack: Path, root: Path) -> Iterator[Frame]:
    for line in stack.read_text(encoding="utf-8").splitlines():
        file, number, name = line.split("\t")
        path = Path(file)
        if path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES and name != "<module>":
            yield Frame(path.relative_to(root), int(number), name)


def _types(root: Path, frames: Sequence[Frame]) -> set[str]:
    """The names of the classes that the functions on the stacks speak of."""
    trees = {
        path.relative_to(root): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    classes = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    classes = {name for name in classes if not name.endswith("Error")}
    met = set[str]()
    for frame in frames:
        tree, named = trees[frame.path], set[str]()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and _begins(node) == frame.line:
                named |= _named_in(node)
            if isinstance(node, ast.ClassDef) and node.name == frame.name.split(".")[0]:
                named.add(node.name)
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        named |= _annotated(part)
        met |= named - _foreign(tree)
    return met & classes


def _foreign(tree: ast.Module) -> set[str]:
    """The names that a module has from other packages than ours, as ``click.Command``."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    roots = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    roots = {root for root in roots if root not in PACKAGES}
    named = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in PACKAGES
        for alias in node.names
    }
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return named | {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in roots}


def _begins(node: ast.FunctionDef) -> int:
    """The line at which the interpreter says that the function begins: that of its first decorator."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _named_in(node: ast.FunctionDef) -> set[str]:
    return _annotated(node) | {_last_name(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}


def _annotated(node: ast.FunctionDef) -> set[str]:
    """The names in all annotations of a function, of its own variables too."""
    holders = [part for part in ast.walk(node) if isinstance(part, (ast.arg, ast.AnnAssign))]
    annotations = [holder.annotation for holder in holders if holder.annotation is not None]
    annotations += [node.returns] if node.returns is not None else []
    return {_last_name(part) for annotation in annotations for part in ast.walk(annotation)}


def _last_name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the way. The exit code is 0, or 1 if ``--check`` is given and it is too long."""
    parser = argparse.ArgumentParser(prog="python -m scripts.frames", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="of the code base")
    parser.add_argument("--check", action="store_true", help="exit with 1 if there are too many frames or types")
    options = parser.parse_args(arguments)
    way = walk(options.root.resolve())
    for title, frames in (("parent", way.parent), ("worker", way.worker)):
        sys.stdout.write(f"{len(frames)} frames in the {title}\n")
        sys.stdout.writelines(f"  {frame.path}:{frame.line} {frame.name}\n" for frame in frames)
    sys.stdout.write(f"{way.frames} frames in all, {MOST_FRAMES} at most\n")
    sys.stdout.write(f"{len(way.types)} types, {MOST_TYPES} at most: {', '.join(way.types)}\n")
    return int(options.check and (way.frames > MOST_FRAMES or len(way.types) > MOST_TYPES))


if __name__ == "__main__":
    sys.exit(main())
