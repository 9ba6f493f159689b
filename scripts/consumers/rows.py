"""The runtimes of the table. What is not installed here is a row with its reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runtimes.errors import BackendUnavailableError
from runtimes.native import include_folder
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
    import onnxruntime
    import openvino

    capi = Path(onnxruntime.__file__).parent / "capi"
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # the wheel has the library under its full version alone
        (folder / name).symlink_to(next(capi.glob("libonnxruntime.so.*")))
    declarations = ROOT / "tests" / "fixtures" / "onnxruntime"
    options = ["-DONNXRUNTIME", f"-I{declarations}", f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    yield _compile("ONNX Runtime's C library", PROGRAMS / "native.cpp", folder, options)
    libraries = Path(openvino.__file__).parent / "libs"
    paths = [f"-isystem{libraries.parent / 'include'}", f"-Wl,-rpath,{libraries},-rpath-link,{libraries}"]
    cpp, c = (str(next(libraries.glob(f"{name}.so.*"))) for name in ("libopenvino", "libopenvino_c"))
    yield _compile("OpenVINO's C++ library", PROGRAMS / "native.cpp", folder, [*paths, cpp])
    yield _compile("OpenVINO's C library", PROGRAMS / "openvino.c", folder, [*paths, c])


def _compile(name: str, source: Path, folder: Path, options: list[str]) -> Consumer:
    program = folder / name.replace(" ", "-").replace("'", "")
    compiler = ["gcc"] if source.suffix == ".c" else ["g++", "-std=c++17", f"-I{include_folder()}"]
    try:
        subprocess.run([*compiler, "-O1", str(source), "-o", str(program), *options], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise BackendUnavailableError(
            f"{source.name} cannot be compiled: {error}", code="compiler-missing", hint="make cpp installs a compiler"
        ) from error
    return Consumer(name, (str(program),), {}, "from the Python wheel")


def _peer(name: str) -> Path:
    folder = PEERS / name
    if not (folder / ".complete").exists():
        raise BackendUnavailableError(
            f"there is no .peers/{name} here", code="peer-missing", hint=f"make .peers/{name}/.complete"
        )
    return folder
