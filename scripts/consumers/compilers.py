"""Compilation of C and C++ programs against the headers of ``runtimes.native`` and the wheels of this environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtimes.errors import BackendUnavailableError, quote
from runtimes.native import include_folder

DECLARATIONS = Path(__file__).parents[2] / "tests" / "fixtures" / "onnxruntime"
"""The folder with the declarations of ONNX Runtime's C library, whose wheel has none."""


def compile_program(source: Path, program: Path, *options: str) -> Path:
    """Compile a program with all warnings as errors, and return its path.

    Raises:
        BackendUnavailableError: There is no compiler, or it ends with an error.
    """
    compiler = ["gcc", "-std=c11"] if source.suffix == ".c" else ["g++", "-std=c++17", f"-I{include_folder()}"]
    command = [*compiler, "-O1", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)]
    try:
        subprocess.run([*command, *options, "-ljpeg", "-lcrypto"], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise BackendUnavailableError(
            f"{source.name} cannot be compiled: {quote(reason)}",
            code="compiler-missing",
            hint="make cpp installs a compiler and the libraries",
        ) from error
    return program


def onnxruntime_options(folder: Path) -> list[str]:
    """Return the compiler's options for ONNX Runtime's C library of this environment, linked from ``folder``.

    The wheel has the library under another name than the linker and the loader look for.
    """
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        if not (folder / name).exists():
            (folder / name).symlink_to(library)
    return ["-DONNXRUNTIME", f"-I{DECLARATIONS}", f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]


def openvino_options(library: str = "libopenvino") -> list[str]:
    """Return the compiler's options for OpenVINO of this environment, whose wheel has headers and libraries.

    Args:
        library: The library: ``libopenvino`` for C++, ``libopenvino_c`` for C.
    """
    import openvino

    wheel = Path(openvino.__file__).parent
    (path,) = (wheel / "libs").glob(f"{library}.so.*")
    loader = f"-Wl,-rpath,{wheel / 'libs'},-rpath-link,{wheel / 'libs'}"
    return ["-isystem", str(wheel / "include"), str(path), loader]
