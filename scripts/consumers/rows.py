"""The runtimes of the table. What is not installed here is a row with its reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from runtimes.errors import BackendUnavailableError
from scripts.consumers.compilers import compile_program, onnxruntime_options, openvino_options
from scripts.consumers.consumer import ROOT, Consumer

PROGRAMS = Path(__file__).parent / "programs"

PEERS = ROOT / ".peers"

PYTHON_ROWS = (
    ("onnx.reference", "onnx_reference", "the reference evaluator of the onnx package"),
    ("tract", "tract_python", "Rust"),
    ("OpenCV", "opencv", "`cv2.dnn.readNetFromONNX`"),
    ("IREE", "iree_cpu", "compiled for the CPU"),
    ("MNN", "mnn", "converted by MNN's converter"),
    ("ncnn", "ncnn_pnnx", "converted by pnnx; one image at a time"),
)
"""The name, the module and the note of each runtime in the environment ``consumers``."""


def consumers(folder: Path) -> Iterator[Consumer]:
    """Yield all runtimes, and compile the native ones into ``folder``.

    Raises:
        BackendUnavailableError: An environment of ``make peers`` or a compiler is missing.
    """
    modules = _peer("node") / "node_modules"
    script = ("node", str(PROGRAMS / "node.mjs"))
    yield Consumer("ONNX Runtime for Node.js", (*script, str(modules / "onnxruntime-node")), {}, "`onnxruntime-node`")
    yield Consumer("ONNX Runtime Web in Node.js", (*script, str(modules / "onnxruntime-web")), {}, "WebAssembly")
    browser = (sys.executable, "-m", "scripts.consumers.programs.chromium", str(modules / "onnxruntime-web"))
    yield Consumer("ONNX Runtime Web in Chromium", browser, {}, "WebAssembly, one thread")
    yield from native_consumers(folder)
    python = str(_peer("consumers") / "bin" / "python")
    for name, module, note in PYTHON_ROWS:
        yield Consumer(name, (python, "-m", f"scripts.consumers.programs.{module}"), {}, note)


def native_consumers(folder: Path) -> Iterator[Consumer]:
    """Yield the runtimes in C and C++, which are compiled against the wheels of this environment."""
    for name, source, options in (
        ("ONNX Runtime's C library", "native.cpp", onnxruntime_options(folder)),
        ("OpenVINO's C++ library", "native.cpp", openvino_options()),
        ("OpenVINO's C library", "openvino.c", openvino_options("libopenvino_c")),
    ):
        program = compile_program(PROGRAMS / source, folder / name.replace(" ", "-").replace("'", ""), *options)
        yield Consumer(name, (str(program),), {}, "from the Python wheel")


def _peer(name: str) -> Path:
    folder = PEERS / name
    if not (folder / ".complete").exists():
        raise BackendUnavailableError(
            f"there is no .peers/{name} here", code="peer-missing", hint=f"make .peers/{name}/.complete"
        )
    return folder
