"""``rexport tensorrt`` as users type it. TensorRT-RTX is real; there need not be a GPU."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import cli
from exporter.commands import engine_options
from runtimes import Artifact
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.tensors import cuda
from tests.exporter.command_line import environment, errors, here, python, rexport
from tests.exporter.small import content
from tests.processes import default_interrupt
from tests.refusals import error_codes

without_gpu = pytest.mark.skipif(cuda.missing() is None, reason="a GPU is here: the engine is checked and runs")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README shows. Not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    result = rexport("tensorrt", "resnet20", "--weights", "bundled", "--flavor", "rtx", "-o", f"{folder}/")
    assert (result.code, result.stdout) == (0, f"{folder}/resnet20.engine\n"), result.stderr
    assert f"{folder}/resnet20.onnx: " in result.stderr
    assert re.search(rf"^TensorRT-RTX [\d.]+: .*{Profile(1, 8, 64)}$", result.stderr, re.MULTILINE)
    return folder / "resnet20.engine"


@pytest.fixture
def copied(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """An ONNX artifact in a folder of the test's own."""
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "own")
    return tmp_path / "own" / onnx_artifact.path.name


def test_one_command_leaves_an_engine_and_its_source(built: Path) -> None:
    manifest = Artifact.read(built).manifest
    assert manifest is not None
    assert manifest.engine is not None
    assert (manifest.name, manifest.precision, manifest.engine.onnx) == ("resnet20", "fp32", "resnet20.onnx")
    names = [name for name in content(built.parent) if not name.endswith(".npz")]
    assert sorted(names) == ["resnet20.engine", "resnet20.engine.json", "resnet20.onnx", "resnet20.onnx.json"]


@without_gpu
def test_an_engine_that_cannot_run_here_is_not_verified(built: Path) -> None:
    result = here(cli.main, "verify", built)
    assert (result.code, result.stdout) == (5, "")
    (error,) = errors(result)
    assert "tensorrt-rtx" in error
    assert "pip install" in error


@without_gpu
def test_inspect_describes_an_engine_without_a_gpu(built: Path) -> None:
    result = rexport("inspect", built)
    assert result.code == 0, result.stderr
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in result.stdout.splitlines() if "  " in line)
    assert facts["engine"].startswith("TensorRT-RTX 1.")
    assert facts["engine"].endswith("without a GPU")
    assert facts["profiles"] == str(Profile(1, 8, 64))
    level, tf32 = facts["built with"].split("; ")
    assert (level.split()[-1], tf32.split()) == ("3", ["TensorFloat-32", "off"])
    assert facts["built from"].startswith("resnet20.onnx, sha256 ")
    assert result.stdout.splitlines()[-1].startswith("layers: ")
    told = json.loads(here(cli.main, "inspect", built, "--json").stdout)
    assert told["engine"]["profiles"] == [{"least": 1, "best": 8, "most": 64}]
    assert told["layers"] is None
    assert "GPU" in told["no_layers"]
    assert "no_layers_code" in told


def test_an_engine_lies_beside_its_onnx_file(copied: Path, tmp_path: Path) -> None:
    result = rexport("tensorrt", copied, "--flavor", "rtx", "--max-batch", "4", "--workspace", "1GiB", cwd=tmp_path)
    assert (result.code, result.stdout) == (0, f"{copied.with_suffix('.engine')}\n"), result.stderr
    manifest = Artifact.read(copied.with_suffix(".engine")).manifest
    assert manifest is not None
    assert manifest.engine is not None
    assert manifest.engine.profiles == (Profile(1, 4, 4),)
    assert manifest.engine.workspace_bytes == 1 << 30


def test_the_hint_of_a_damaged_engine_mends_it(built: Path, tmp_path: Path) -> None:
    """``runtimes.artifacts.rebuild_command`` writes it, and it is this command that must take it."""
    shutil.copytree(built.parent, tmp_path / "it's")
    engine = tmp_path / "it's" / built.name
    data = bytearray(engine.read_bytes())
    data[5000] ^= 1
    engine.write_bytes(data)
    result = here(cli.main, "inspect", engine)
    assert result.code == 3
    found = re.search(r"(rexport tensorrt .*)\)$", errors(result)[0])
    assert found is not None, result.stderr
    shell = ["sh", "-c", found[1].replace("rexport", f"{sys.executable} -m exporter.cli", 1)]
    subprocess.run(shell, env=environment(), check=True, capture_output=True)
    assert here(cli.main, "inspect", engine).code == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "values"),
    [
        ([], 2, "usage", ["'ARTIFACT.onnx|VARIANT|CHECKPOINT|MODULE:FACTORY'"]),
        (["resnet51"], 2, "variant-unknown", ["'resnet51'", "resnet50"]),
        (["missing.onnx"], 6, "file-access-failed", ["missing.onnx"]),
        (["folder/"], 6, "file-not-regular", ["folder"]),
        (["page.onnx"], 3, "file-not-model", ["page.onnx", "HTML"]),
        (
            ["page.onnx", "--precision", "fp16", "--size", "8"],
            2,
            "network-options-unused",
            ["--size", "--precision"],
        ),
        (["page.onnx", "--opset", "20"], 2, "network-options-unused", ["--opset"]),
        (["resnet20", "--flavor", "lean"], 2, "usage", ["'lean'", "'auto'", "'rtx'"]),
        (["resnet20", "--min-batch", "9", "--max-batch", "4"], 2, "profile-out-of-order", ["9", "4"]),
        (["resnet20", "--profile", "1:8"], 2, "profile-invalid", ["'1:8'", "1:8:64"]),
        (["resnet20", "--profile", "8:1:64"], 2, "profile-out-of-order", ["8", "1", "64"]),
        (["resnet20", "--profile", "1:1:1", "--max-batch", "4"], 2, "profile-given-twice", ["--profile"]),
        (["resnet20", "--batch", "4", "--max-batch", "4"], 2, "batch-excludes-profiles", ["--batch 4"]),
        (["resnet20", "--opt-level", "6"], 2, "usage", ["--opt-level", "6"]),
        (["resnet20", "--workspace", "much"], 2, "size-invalid", ["'much'", "4GiB"]),
        (["resnet20", "--compute-capability", "new"], 2, "compute-capability-invalid", ["'new'", "sm_86"]),
        (
            ["resnet20", "--flavor", "rtx", "--compute-capability", "9.0"],
            2,
            "compute-capability-unsupported",
            ["TensorRT-RTX", "9.0"],
        ),
        (["resnet20", "--flavor", "rtx", "--hardware-compat", "ampere+"], 2, "setting-unsupported", ["TensorRT-RTX"]),
        (["resnet20", "--flavor", "rtx", "--timing-cache", "times"], 2, "setting-unsupported", ["TensorRT-RTX"]),
        (["resnet20", "--precision", "int4"], 2, "usage", ["'int4'", "'fp32'"]),
        (["resnet20", "--timing-cache", "no/times"], 6, "folder-missing", ["mkdir -p no"]),
        (["resnet20", "-o", "page.onnx/x.engine"], 6, "file-access-failed", ["page.onnx"]),
        (["resnet20", "-o", "x.onnx"], 2, "engine-name-onnx", ["x.onnx", "NAME.engine"]),
    ],
)
def test_bad_calls_get_one_line_and_their_code(
    tmp_path: Path, arguments: list[str], exit_code: int, code: str, values: list[str]
) -> None:
    (tmp_path / "page.onnx").write_text("<!DOCTYPE html><title>404</title>")
    (tmp_path / "folder").mkdir()
    result = here(cli.main, "tensorrt", *arguments, cwd=tmp_path)
    assert (result.code, result.stdout) == (exit_code, ""), result.stderr
    assert error_codes(result.stderr) == [code]
    assert [value for value in values if value not in errors(result)[0]] == []
    assert sorted(place.name for place in tmp_path.iterdir()) == ["folder", "page.onnx"]


@pytest.mark.skipif(FLAVORS["tensorrt"].missing() is None, reason="TensorRT is installed")
def test_a_missing_library_is_named_with_its_remedy(copied: Path) -> None:
    before = content(copied.parent)
    result = here(cli.main, "tensorrt", copied, "--flavor", "tensorrt")
    assert result.code == 5
    assert "pip install 'rexport[tensorrt]'" in errors(result)[0]
    assert content(copied.parent) == before


SLOWED = """
import os, sys, time
from exporter import cli
from exporter.targets import tensorrt_engine as tensorrt
told = tensorrt.BuildProgress.__call__
stderr = os.dup(2)  # the command keeps its own from what the library prints
def slowly(self, phase, done, total):
    os.write(stderr, b"building\\n")
    time.sleep(0.5)
    return told(self, phase, done, total)
tensorrt.BuildProgress.__call__ = slowly
sys.argv = ["rexport", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_build_and_leaves_no_engine(copied: Path, number: signal.Signals, code: int) -> None:
    """The build is real, and is slowed down by what hears of its progress."""
    before = content(copied.parent)
    command = [sys.executable, "-c", SLOWED, "tensorrt", str(copied), "--flavor", "rtx"]
    with default_interrupt():
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("building"):
            break
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, "")
    assert "Traceback" not in stderr
    assert ("interrupted" in stderr) == (number == signal.SIGINT)
    assert content(copied.parent) == before


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "onnx", "numpy", "tensorrt", "tensorrt_rtx", "cuda", "runtimes.protocol")
    code = f"""
import sys
from exporter.cli import cli
try:
    cli(["tensorrt", "--help"])
except SystemExit:
    pass
print([name for name in {heavy} if name in sys.modules])
"""
    result = python("-c", code)
    assert "--compute-capability" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_every_option_is_an_engines_or_a_networks() -> None:
    """What the command takes for an engine is asked for by name; all else is refused beside an ONNX file."""
    command = cli.cli.commands["tensorrt"]
    names = {parameter.name for parameter in command.params if parameter.expose_value}
    of_network = {parameter.name for parameter in cli.cli.commands["onnx"].params if parameter.expose_value}
    assert names - {"source"} - set(engine_options.ENGINE_PARAMETERS) == of_network - {
        "network",
        "out",
        "force",
        "target",
    }
    assert set(engine_options.ENGINE_PARAMETERS) <= names


def _profiles(**given: int | tuple[str, ...]) -> tuple[Profile, ...]:
    options = {"min_batch": None, "opt_batch": None, "max_batch": None, "profile": ()}
    return engine_options.profiles({**options, **given})


@pytest.mark.parametrize(
    ("given", "profile"),
    [
        ({"max_batch": 4}, Profile(1, 4, 4)),
        ({"max_batch": 256}, Profile(1, 8, 256)),
        ({"min_batch": 16}, Profile(16, 16, 64)),
        ({"min_batch": 100}, Profile(100, 100, 100)),
        ({"opt_batch": 128}, Profile(1, 128, 128)),
        ({"opt_batch": 1, "max_batch": 1}, Profile(1, 1, 1)),
        ({"min_batch": 2, "opt_batch": 3, "max_batch": 5}, Profile(2, 3, 5)),
    ],
)
def test_a_profile_is_completed_from_what_is_given(given: dict[str, int], profile: Profile) -> None:
    assert _profiles(**given) == (profile,)


def test_several_profiles_are_kept_in_their_order() -> None:
    assert _profiles() == ()
    assert _profiles(profile=("1", "2:4:8")) == (Profile(1, 1, 1), Profile(2, 4, 8))


def test_every_setting_has_an_option() -> None:
    """``tf32`` is the graph's own."""
    fields = {field.name for field in dataclasses.fields(Settings)} - {"tf32"}
    options = {"profile": "profiles", "workspace": "workspace_bytes", "compute_capability": "targets"}
    assert fields <= {options.get(name, name) for name in engine_options.ENGINE_PARAMETERS}


@pytest.mark.parametrize(
    ("source", "file"),
    [("resnet20", False), ("resnet51", False), ("a.onnx", True), ("./resnet20", True), ("here", True)],
)
def test_a_variant_is_told_from_a_file(
    source: str, file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("resnet20", "here"):
        (tmp_path / name).mkdir()
    assert engine_options.is_artifact(source) is file
