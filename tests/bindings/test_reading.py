"""How the surfaces are read: from sources that are not imported, and from modules that are."""

from __future__ import annotations

import enum
from pathlib import Path
from types import ModuleType

from tests.bindings import imported
from tests.bindings.record import pynvml
from tests.bindings.sources import Package

FILES = {
    "p/__init__.py": """
from p.a import *
from .b import Base as Own
import os
class Here:
    h = 1
if x:
    y: int = 3
z = Here()
""",
    "p/a.py": """
__all__ = ['f']
def f(a, b=1, *, c, d=2, **e) -> 'Own': ...
def hidden(): ...
""",
    "p/b.py": """
class Root:
    def r(self): ...
class Base(Root):
    v = 1
    def __init__(self, q):
        self.w = q
""",
    "p/c.pyi": """
from p import f
class C:
    @property
    def s(self) -> int: ...
    def m(self, x: int) -> str: ...
""",
    "p/circle.py": "from p.other import *\ndef one(): ...\n",
    "p/other.py": "from p.circle import *\ndef two(): ...\n",
    "p/asked.py": """
class M:
    def __getattr__(self, name):
        if name == 'tf32':
            return 1
m = M()
""",
}


def tight(calls: list[str]) -> list[str]:
    """Signatures without spaces."""
    return [call.replace(" ", "") for call in calls]


def package(folder: Path) -> Package:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Package(folder)


def test_sources_are_read_as_python_would(tmp_path: Path) -> None:
    found = package(tmp_path).module("p")
    assert tight(found["f"]) == ["(a,b=...,*,c,d=...,**e)->Own"]
    assert "hidden" not in found
    assert found["Own"] == ["(self, q)"]
    assert {"Own.r", "Own.v", "Own.w", "y", "os", "z.h"} <= found.keys()
    stub = package(tmp_path).module("p.c")
    assert (stub["C.s"], tight(stub["C.m"]), stub["f"]) == ([], ["(self,x)->str"], found["f"])
    assert {"one", "two"} <= package(tmp_path).module("p.circle").keys()
    assert "m.tf32" in package(tmp_path).module("p.asked")


def test_a_struct_is_told_by_the_function_that_returns_it(tmp_path: Path) -> None:
    (tmp_path / "nvidia_ml_py-12.1-py3.dist-info").mkdir()
    (tmp_path / "pynvml.py").write_text(
        "class c_nvmlMemory_t(S):\n    _fields_ = [('total', x), ('used', x)]\n"
        "NVML_CLOCK_SM = 1\ndef helper(): ...\n"
        "def nvmlGet(handle):\n    memory = c_nvmlMemory_t()\n    return memory\n"
    )
    version, names, _ = pynvml(tmp_path)
    assert version == "12.1"
    assert tight(names["nvmlGet"]) == ["(handle)->c_nvmlMemory_t"]
    assert {"c_nvmlMemory_t.total", "NVML_CLOCK_SM"} <= names.keys()
    assert "helper" not in names


class Value(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815


def stated() -> None:
    """stated(self: Thing, arg0: str, times: int = 3) -> list[mod.Event]"""


def given(size: int, flags: int = 0) -> None:
    """Gives a struct.

    Returns
    -------
    cudaError_t
        cudaSuccess
    prop : :py:obj:`~.cudaDeviceProp`
        The properties
    """


def test_signatures_are_those_of_docstrings() -> None:
    module = ModuleType("m")
    module.stated, module.given, module.Value = stated, given, Value  # type: ignore[attr-defined]
    found = imported.read(module)
    assert tight(found["stated"]) == ["(self,arg0,times=...)->Event"]
    assert tight(found["given"]) == ["(size,flags=...)->cudaDeviceProp"]
    assert "Value.cudaSuccess" in found
