"""The C++ compiler of the tests. ``make cpp`` installs it, and the libraries that ``runtimes.native`` needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnxruntime
import pytest

from runtimes.native import include_folder

FIXTURES = Path(__file__).parent / "fixtures"

LIBRARIES = "nlohmann/json.hpp", "cstdio", "jpeglib.h", "openssl/evp.h"
"""The headers of other libraries that ours include."""


def compile_program(source: Path, program: Path, *options: str) -> Path:
    """Compile a C++ program with all warnings as errors. Without a compiler or a library, the test is skipped."""
    _require_compiler()
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(include_folder()), str(source)]
    done = subprocess.run(
        [*command, "-o", str(program), *options, "-ljpeg", "-lcrypto"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return program


def onnxruntime_options(folder: Path) -> list[str]:
    """Return the compiler's options for ONNX Runtime's C library of this environment, linked from ``folder``.

    The wheel has the library without its headers, and under another name than the linker and the loader look for.
    """
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    return [
        "-DONNXRUNTIME",
        "-I",
        str(FIXTURES / "onnxruntime"),
        "-L",
        str(folder),
        "-lonnxruntime",
        f"-Wl,-rpath,{folder}",
    ]


def openvino_options() -> list[str]:
    """Return the compiler's options for OpenVINO of this environment, whose wheel has headers and libraries."""
    import openvino

    wheel = Path(openvino.__file__).parent
    (library,) = (wheel / "libs").glob("libopenvino.so.*")
    path = f"-Wl,-rpath,{wheel / 'libs'},-rpath-link,{wheel / 'libs'}"
    return ["-isystem", str(wheel / "include"), str(library), path]


def _require_compiler() -> None:
    includes = "".join(f"#include <{name}>\n" for name in LIBRARIES)
    try:
        subprocess.run(["g++", "-E", "-x", "c++", "-"], input=includes, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no C++ compiler here; make cpp installs one")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the C++ headers need a library that is not here; make cpp installs it: {error.stderr[:200]}")
