"""Engines for the cache's tests, and a process that asks the cache for one.

``python -m tests.runtimes.backends.tensorrt.cached FOLDER ONNX MODE`` says ``ready``, waits for a line, and asks for
the engine of the ONNX file, which TensorRT-RTX builds for real. It prints the entry's path; its makers write their
numbers into the file ``makers`` beside the folder. ``MODE`` is ``stuck``, in which the first maker of all leaves half
a file and never ends; ``unlocked``, in which nobody takes turns and each maker waits for a second one, to show that a
test sees it; or ``forking``, in which the maker forks a child that outlives it, and never ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from runtimes import Artifact, TensorSpec, files
from runtimes.artifacts.artifact import publish
from runtimes.artifacts.manifest import Engine, Manifest, Profile, Weights
from runtimes.backends.tensorrt import engine_cache
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.engine_cache import Key
from runtimes.backends.tensorrt.flavors import FLAVORS

KEY = Key("rtx", "1.7.1.116", None, None, None, "ab" * 32, Settings())

_STUCK_S = 300


def publish_engine(target: Path, plan: bytes = b"vtrt, as far as its first bytes tell") -> Artifact:
    """Publishes the plan, which need not be one, with a manifest at ``target``."""
    file = files.temporary_for(target)
    file.write_bytes(plan)
    return publish(file, target, _manifest(file), None)


def _manifest(file: Path) -> Manifest:
    profiles = (Profile(1, 8, 64),)
    return Manifest(
        name="cached",
        format="engine",
        sha256=files.sha256_of(file),
        size_bytes=file.stat().st_size,
        variant={"name": "cached"},
        weights=Weights("random", False, "ab" * 32, seed=0),
        precision="fp32",
        inputs=(TensorSpec("input", "float32", ("batch", 3, 32, 32)),),
        outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
        labels=None,
        preprocessing=None,
        dataset=None,
        opset=None,
        producers={"rexport": "0"},
        parent=KEY.onnx_sha256,
        parity=None,
        vectors=None,
        engine=Engine(
            flavor="rtx",
            version=KEY.version,
            gpu=None,
            compute_capability=None,
            driver=None,
            targets=(),
            profiles=profiles,
            opt_level=3,
            workspace_bytes=None,
            tf32=False,
            hardware_compat="none",
            version_compat=False,
            stripped=False,
            onnx="cached.onnx",
            tolerance=None,
        ),
    )


def _make(target: Path, onnx: Path, mode: str) -> None:
    makers = target.parent.parent / "makers"
    with makers.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if mode == "stuck" and len(makers.read_text().split()) == 1:
        files.temporary_for(target).write_bytes(b"vtrt, half")
        time.sleep(_STUCK_S)
    while mode == "unlocked" and len(makers.read_text().split()) < 2:
        time.sleep(0.01)
    if mode == "forking":
        child = os.fork()
        if child:
            makers.with_name("child").write_text(str(child))
        time.sleep(_STUCK_S)
    publish_engine(target, bytes(build(onnx, Settings(), FLAVORS["rtx"]).plan))


def main() -> None:
    """Asks once."""
    folder, onnx, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if mode == "unlocked":
        unlocked = SimpleNamespace(file_lock=lambda *_: contextlib.nullcontext(), LONG_PATIENCE_S=0.0)
        vars(engine_cache)["files"] = unlocked
    FLAVORS["rtx"].library()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    path = engine_cache.entry(
        KEY,
        folder,
        lambda target: _make(target, onnx, mode),
        lambda reason: print(reason, file=sys.stderr),  # noqa: T201
    )
    print(path, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
