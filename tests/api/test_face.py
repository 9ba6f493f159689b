"""What ``import rexport`` brings, what it costs, and what is said where a folder hides one of its packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rexport
import runtimes
from exporter import version
from rexport.console import EXIT_CODE
from rexport.shadowing import PACKAGES, ShadowedPackageError, require_own
from runtimes.errors import RexportError
from tests.refusals import error_codes

REPO = Path(rexport.__file__).parents[1]
HEAVY = ["numpy", "torch", "onnx", "onnxruntime", "openvino", "click", "rich", "matplotlib"]
TYPING = {
    "rexport",
    "typing",
    "_typing",
    "collections",
    "contextlib",
    "functools",
    "copyreg",
    "re",
    "operator",
    "types",
}
"""The module, and what Python's own ``typing`` is made of."""

CONSOLE = "import sys; sys.argv = ['script', '--help']; from rexport.console import {0}; {0}()"


def fresh(code: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, for which ``cwd`` comes first on the path."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )


def modules_after(code: str) -> list[str]:
    done = fresh(f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def test_the_import_loads_nothing_of_ours_and_no_library() -> None:
    loaded = modules_after("import rexport")
    assert [name for name in loaded if name.split(".")[0] in ("rexport", *PACKAGES)] == ["rexport"]
    assert not set(HEAVY) & set(loaded)


def test_the_import_loads_next_to_nothing_of_python() -> None:
    code = "import sys; before = set(sys.modules); import rexport; print(*sorted(set(sys.modules) - before))"
    added = set(fresh(code).stdout.split())
    assert {name.split(".")[0] for name in added} <= TYPING


@pytest.mark.parametrize("name", ["open", "Classifier", "RexportError", "available_backends", "Preprocessing"])
def test_what_an_app_uses_needs_no_torch_and_no_exporter(name: str) -> None:
    loaded = set(modules_after(f"import rexport; rexport.{name}"))
    assert not loaded & {"torch", "onnxruntime", "openvino", "click", "exporter", "benchmarks"}


@pytest.mark.parametrize("name", ["export", "benchmark", "variants", "Report", "__version__"])
def test_no_name_needs_torch_before_it_is_used(name: str) -> None:
    loaded = set(modules_after(f"import rexport; rexport.{name}"))
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "matplotlib"}


def test_an_export_needs_no_benchmark() -> None:
    assert "benchmarks" not in modules_after("import rexport; rexport.export")


def test_each_public_name_is_found_and_listed() -> None:
    names = json.loads(fresh("import json, rexport; print(json.dumps([rexport.__all__, dir(rexport)]))").stdout)
    assert set(names[0]) <= set(names[1])
    assert sorted(names[0]) == names[0]
    for name in rexport.__all__:
        assert getattr(rexport, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        rexport.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_are_those_of_the_packages() -> None:
    assert rexport.open is runtimes.open
    assert rexport.Classifier is runtimes.Classifier
    assert rexport.available_backends is runtimes.available_backends
    assert rexport.Artifact is runtimes.Artifact
    assert rexport.__version__ == version()


def test_the_whole_tree_of_errors_is_there() -> None:
    def kinds(kind: type[RexportError]) -> set[str]:
        return {kind.__name__}.union(*map(kinds, kind.__subclasses__()))

    ours = {name for name in kinds(RexportError) if hasattr(runtimes.errors, name)}
    assert ours == {name for name in rexport.__all__ if name.endswith("Error")}
    for name in ours:
        assert issubclass(getattr(rexport, name), rexport.RexportError)


def test_the_variants_are_those_of_the_table() -> None:
    names = [variant.name for variant in rexport.variants()]
    assert names[0] == "resnet18"
    assert {"resnet50", "resnet20", "plain34"} <= set(names)


def shadow(folder: Path, name: str, form: str) -> Path:
    """A module of that name in the folder; what it is found under."""
    if form == "file":
        place = folder / f"{name}.py"
        place.write_text("MINE = 1\n")
        return place
    place = folder / name
    place.mkdir()
    (place / "__init__.py").write_text("MINE = 1\n")
    return place


@pytest.mark.parametrize("form", ["package", "file"])
@pytest.mark.parametrize(("name", "use"), [("runtimes", "open"), ("exporter", "export"), ("benchmarks", "benchmark")])
def test_a_folder_that_hides_a_package_is_named(tmp_path: Path, form: str, name: str, use: str) -> None:
    place = shadow(tmp_path, name, form)
    done = fresh(f"import rexport\nrexport.{use}", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rexport.shadowing.ShadowedPackageError: ")
    assert f"{place} hides" in last
    assert repr(name) in last
    assert f"rename {place.name}" in last


def test_a_name_that_does_not_need_the_hidden_package_works(tmp_path: Path) -> None:
    shadow(tmp_path, "benchmarks", "package")
    shadow(tmp_path, "exporter", "package")
    done = fresh("import rexport; print(rexport.open.__module__, rexport.UsageError.__name__)", cwd=tmp_path)
    assert done.stdout == "runtimes.opening UsageError\n"


def test_a_module_that_is_loaded_already_is_named(tmp_path: Path) -> None:
    place = shadow(tmp_path, "runtimes", "package")
    code = """
import runtimes, sys, rexport
sys.path.pop(0)
try:
    rexport.open
except ImportError as error:
    print(error.path)
"""
    assert fresh(code, cwd=tmp_path).stdout == f"{place}\n"


def test_a_folder_without_an_init_hides_nothing(tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    assert fresh("import rexport; print(rexport.benchmark.__name__)", cwd=tmp_path).stdout == "benchmark\n"


@pytest.mark.parametrize("command", ["rexport", "rbench"])
@pytest.mark.parametrize("name", PACKAGES)
def test_the_commands_name_a_folder_that_hides_a_package(tmp_path: Path, command: str, name: str) -> None:
    place = shadow(tmp_path, name, "package")
    done = fresh(CONSOLE.format(command), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_CODE, "")
    assert error_codes(done.stderr) == [ShadowedPackageError.code]
    assert str(place) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["exporter.cli", "benchmarks.cli"])
def test_a_module_started_by_name_says_it_too(tmp_path: Path, module: str) -> None:
    place = shadow(tmp_path, "runtimes", "package")
    done = fresh(
        f"import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('{module}', run_name='__main__')", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (EXIT_CODE, "")
    assert error_codes(done.stderr) == [ShadowedPackageError.code]
    assert str(place) in done.stderr


@pytest.mark.parametrize("command", ["rexport", "rbench"])
def test_the_commands_run_where_nothing_is_hidden(tmp_path: Path, command: str) -> None:
    done = fresh(CONSOLE.format(command), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


def test_our_own_packages_pass() -> None:
    require_own()
