"""The C++ compiler of the tests. ``make cpp`` installs it, and the libraries that ``runtimes.native`` needs."""

from __future__ import annotations

import subprocess

import pytest

LIBRARIES = "nlohmann/json.hpp", "cstdio", "jpeglib.h", "openssl/evp.h"
"""The headers of other libraries that ours include."""


def require_compiler() -> None:
    """Skip the test if there is no compiler here, or not all of ``LIBRARIES``."""
    includes = "".join(f"#include <{name}>\n" for name in LIBRARIES)
    try:
        subprocess.run(["g++", "-E", "-x", "c++", "-"], input=includes, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no C++ compiler here; make cpp installs one")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the C++ headers need a library that is not here; make cpp installs it: {error.stderr[:200]}")
