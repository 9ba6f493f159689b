from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtimes
from exporter.cli import main
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS, variant
from exporter.targets import onnx_file
from runtimes import Artifact, parity
from tests.exporter.command_line import driven, environment, errors, here, python, rexport, wait_for_pause
from tests.exporter.small import SILENT, content
from tests.processes import wait_for
from tests.refusals import error_codes


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a plain call of the command leaves."""
    folder = tmp_path_factory.mktemp("exported")
    result = rexport("onnx", "resnet20", "--size", "8x12", "--seed", "3", "-o", f"{folder}/")
    assert result.code == 0, result.stderr
    assert result.stdout == f"{folder}/resnet20.onnx\n"
    assert "seed 3" in result.stderr
    return folder / "resnet20.onnx"


@pytest.fixture(scope="module")
def other_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of ResNet-20 with seed 1, for the driver."""
    folder = tmp_path_factory.mktemp("graph")
    return onnx_file.export(ExportRequest(variant("resnet20"), f"{folder}/", seed=1), SILENT).path


@pytest.fixture
def older(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """A folder with an older artifact of seed 0."""
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "out")
    return tmp_path / "out"


def seed_of(path: Path) -> int | None:
    """Opens the artifact, holds it to its own vectors, and says which it is."""
    artifact = Artifact.read(path)
    artifact.check_digest()
    with runtimes.open_artifact(artifact) as runtime:
        parity.check(runtime, artifact.vectors(), 5e-5, "PyTorch", "noise")
    assert artifact.manifest is not None
    return artifact.manifest.weights.seed


def test_onnx_prints_one_path_to_a_sound_artifact(exported: Path) -> None:
    assert seed_of(exported) == 3
    manifest = Artifact.read(exported).manifest
    assert manifest is not None
    assert manifest.inputs[0].shape == ("batch", 3, 8, 12)
    assert len(content(exported.parent)) == 3


def test_torch_prints_one_path(tmp_path: Path) -> None:
    result = rexport("torch", "resnet20", "--size", "8", "--batch", "2", "-o", tmp_path / "own name.pt2")
    assert (result.code, result.stdout) == (0, f"{tmp_path}/own name.pt2\n")
    assert seed_of(tmp_path / "own name.pt2") == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "values"),
    [
        (["onnx"], 2, "usage", ["'VARIANT|CHECKPOINT|MODULE:FACTORY'"]),
        (["onnx", "resnet51"], 2, "variant-unknown", ["'resnet51'", "resnet50"]),
        (["onnx", "resnet20", "--size", "8x8x8"], 2, "usage", ["'8x8x8'", "HEIGHTxWIDTH"]),
        (["onnx", "resnet20", "--size", "0"], 2, "dimension-below-one", ["height", "0"]),
        (["onnx", "resnet20", "--batch", "0"], 2, "usage", ["'0'", "'dynamic'"]),
        (["onnx", "resnet20", "--batch", "-1"], 2, "usage", ["'-1'", "'dynamic'"]),
        (["onnx", "resnet20", "--mean", "a,b,c"], 2, "usage", ["'a,b,c'"]),
        (["onnx", "resnet20", "--mean", "0.5,0.5,0.5"], 2, "statistics-incomplete", ["--mean", "--std"]),
        (["onnx", "resnet20", "--mean", "1,2", "--std", "1,2"], 2, "statistics-channel-count", ["--mean", "2", "3"]),
        (["onnx", "resnet20", "--mean", "nan,0,0", "--std", "1,1,1"], 2, "usage", ["--mean"]),
        (["onnx", "resnet20", "--num-classes", "0"], 2, "usage", ["--num-classes", "0"]),
        (["onnx", "resnet20", "--opset", "twenty"], 2, "usage", ["'twenty'"]),
        (["onnx", "resnet20", "--frobnicate"], 2, "usage", ["--frobnicate"]),
        (["onnx", "resnet20", "--seed", "-1"], 2, "usage", ["--seed", "-1"]),
        (["onnx", "plain20", "--shortcut", "B"], 2, "plain-has-no-shortcut", ["plain20"]),
        (["onnx", "resnet20", "--weights", "page.pt"], 3, "weights-unrecognised", ["page.pt"]),
        (["onnx", "resnet20", "--weights", "nothing.pt"], 6, "file-access-failed", ["nothing.pt"]),
        (["onnx", "resnet20", "--weights", "imagenet"], 4, "imagenet-variant-unpublished", ["resnet20", "resnet18"]),
        (["onnx", "resnet20", "--labels", "labels.txt"], 4, "label-count-mismatch", ["labels.txt", "3", "10"]),
        (["onnx", "resnet20", "--labels", "missing.txt"], 6, "file-access-failed", ["missing.txt"]),
        (["onnx", "resnet20", "--num-classes", "7", "--data", "fashion-mnist"], 4, "data-class-count", ["10", "7"]),
        (["onnx", "resnet20", "-o", "page.pt/x.onnx"], 6, "file-access-failed", ["page.pt"]),
        (["onnx", "resnet20", "-o", "/proc/x.onnx"], 6, "file-access-failed", ["/proc"]),
        (["onnx", "resnet20", "-o", "/proc/nowhere/"], 6, "file-access-failed", ["/proc/nowhere"]),
        (["onnx", "resnet20", "-o", "no such/x.onnx"], 6, "folder-missing", ["no such: ", "mkdir -p 'no such'"]),
        (["onnx", "resnet20", "--precision", "int4"], 2, "usage", ["'int4'", "'tf32'", "'bf16'"]),
        (["onnx", "resnet20", "--precision", "bf16", "--opset", "20"], 2, "opset-too-old", ["bf16", "22", "20"]),
        (
            ["onnx", "resnet20", "--precision", "int8", "--calibration-images", "0"],
            2,
            "usage",
            ["--calibration-images"],
        ),
        (
            ["onnx", "resnet20", "--in-channels", "5", "--input", "raw"],
            2,
            "option-needs-statistics",
            ["--input raw", "5"],
        ),
        (["torch", "resnet20", "--precision", "int8"], 2, "program-needs-float", ["int8"]),
        (["torch", "resnet20", "--target", "tensorrt"], 2, "usage", ["--target"]),
        (["info", "resnet51"], 2, "variant-unknown", ["'resnet51'"]),
        (["explain"], 2, "usage", ["'ARTIFACT'"]),
        (["explain", "missing.onnx"], 6, "file-access-failed", ["missing.onnx"]),
        (["explain", "page.pt"], 3, "file-not-model", ["page.pt", "HTML"]),
        (["verify", "missing.onnx"], 6, "file-access-failed", ["missing.onnx"]),
        (["verify", "page.pt"], 3, "file-not-model", ["page.pt", "HTML"]),
        (["inspect", "."], 6, "file-not-regular", ["."]),
        (["predict", "missing.onnx"], 2, "usage", ["'PATH|DIR|-...'"]),
    ],
)
def test_bad_calls_get_one_line_and_their_code(
    tmp_path: Path, arguments: list[str], exit_code: int, code: str, values: list[str]
) -> None:
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><title>404</title>")
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\nfox\r\n\r\n")
    before = content(tmp_path)
    result = here(main, *arguments, cwd=tmp_path)
    assert result.code == exit_code, result.stderr
    assert result.stdout == ""
    assert error_codes(result.stderr) == [code]
    assert [value for value in values if value not in errors(result)[0]] == []
    assert content(tmp_path) == before


def test_a_traceback_needs_debug(tmp_path: Path) -> None:
    result = rexport("verify", "missing.onnx", "--debug", cwd=tmp_path)
    assert result.code == 6
    assert "Traceback" in result.stderr
    assert error_codes(result.stderr) == ["file-access-failed"]


def test_lacking_memory_has_its_own_exit_code(tmp_path: Path) -> None:
    result = rexport("onnx", "resnet20", "--size", "9000000", cwd=tmp_path)
    assert result.code == 6
    assert error_codes(result.stderr) == ["memory-insufficient"]


def test_an_existing_file_is_refused_and_kept(older: Path) -> None:
    before = content(older)
    result = here(main, "onnx", "resnet20", "-o", older)
    assert result.code == 2
    assert error_codes(result.stderr) == ["target-exists"]
    assert "resnet20.onnx" in result.stderr
    assert "--force" in result.stderr
    assert content(older) == before


def test_labels_in_any_form_end_in_the_manifest(tmp_path: Path, onnx_artifact: Artifact) -> None:
    text = "\r\n".join(f"label {number}" for number in range(10))
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    process = driven(
        onnx_artifact.path, "none", "onnx", "resnet20", "--labels", tmp_path / "labels.txt", "-o", tmp_path
    )
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (0, f"{tmp_path}/resnet20.onnx\n"), stderr
    manifest = Artifact.read(tmp_path / "resnet20.onnx").manifest
    assert manifest is not None
    assert manifest.labels == tuple(f"label {number}" for number in range(10))


@pytest.mark.parametrize("shown", [False, True])
def test_what_libraries_print_is_for_debugging_alone(shown: bool, tmp_path: Path, onnx_artifact: Artifact) -> None:
    debug = ["--debug"] if shown else []
    process = driven(onnx_artifact.path, "noise", "onnx", "resnet20", "-o", tmp_path, *debug)
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == f"{tmp_path}/resnet20.onnx\n"
    assert ("a library talks" in stderr) == shown
    assert ("native code talks" in stderr) == shown


@pytest.mark.parametrize(
    ("number", "code", "pause"),
    [
        (signal.SIGINT, 130, "loading the weights"),
        (signal.SIGINT, 130, "checking parity"),
        (signal.SIGINT, 130, "replace 2"),
        (signal.SIGTERM, 143, "exporting to ONNX"),
        (signal.SIGTERM, 143, "writing the artifact"),
        (signal.SIGTERM, 143, "replace 1"),
    ],
)
def test_an_interrupted_export_leaves_the_old_artifact_alone(
    older: Path, other_graph: Path, number: signal.Signals, code: int, pause: str
) -> None:
    before = content(older)
    process = driven(other_graph, pause, "onnx", "resnet20", "--seed", "1", "--force", "-o", older)
    wait_for_pause(process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert stdout == ""
    assert "Traceback" not in stderr
    after = content(older)
    assert {name: after[name] for name in before} == before
    if not pause.startswith("replace"):  # from there on, the next export removes what is left
        assert after == before
    assert not [name for name in after if name.endswith(".tmp")]
    assert seed_of(older / "resnet20.onnx") == 0


@pytest.mark.parametrize(
    ("pause", "seed"),
    [("checking parity", 0), ("replace 1", 0), ("replace 2", 0), ("replace 3", 0), ("replace 4", 1)],
)
def test_a_killed_export_leaves_the_old_artifact_or_the_new(
    older: Path, other_graph: Path, pause: str, seed: int
) -> None:
    command = ("onnx", "resnet20", "--seed", "1", "--force", "-o", older)
    process = driven(other_graph, pause, *command)
    wait_for_pause(process)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert seed_of(older / "resnet20.onnx") == seed
    if pause in ("replace 1", "replace 4"):  # what is left there is no more than at the pauses between
        return
    again = driven(other_graph, "none", *command)
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert seed_of(older / "resnet20.onnx") == 1
    assert len(content(older)) == 3


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"SigCgt:\s*(\w+)", status)
    assert found is not None
    return bool(int(found[1], 16) >> (number - 1) & 1)


def test_a_signal_before_the_work_begins_is_quiet(older: Path) -> None:
    """However early it comes once the command runs: the old artifact stays and nothing is left."""
    before = content(older)
    command = [sys.executable, "-m", "exporter.cli", "onnx", "resnet20", "--force", "-o", str(older)]
    for delay_s in (0.0, 0.9):
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(partial(catches, process.pid, signal.SIGTERM))
        time.sleep(delay_s)
        assert process.poll() is None
        process.terminate()
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (143, ""), stderr
        assert content(older) == before


def test_list_and_info_answer_in_json() -> None:
    rows = json.loads(rexport("list", "--json").stdout)
    assert [row["variant"]["name"] for row in rows] == list(VARIANTS)
    entry = json.loads(here(main, "info", "resnet50", "--size", "33x47", "--num-classes", "7", "--json").stdout)
    assert entry["variant"]["size"] == [33, 47]
    assert entry["variant"]["classes"] == 7
    assert "multiply-adds" in here(main, "info", "resnet50").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["onnx", "--help"], ["list", "--json"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["rexport", *{arguments!r}]
from exporter import cli
try:
    cli.main()
except SystemExit as error:
    assert not error.code, error.code
heavy = ["numpy", "torch", "onnx", "onnxruntime", "onnxscript", "openvino", "safetensors", "PIL", "rich"]
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    result = python("-c", code)
    assert result.code == 0
    assert result.stderr == "[]\n"


def test_a_closed_pipe_is_quiet() -> None:
    for reader in ("head -1", "true"):
        command = f"set -o pipefail; {sys.executable} -m exporter.cli list | {reader}"
        done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


BLOCKED = """
import sys
for name in ("torch", "onnx", "onnxscript"):
    sys.modules[name] = None
sys.argv = ["rexport", *{arguments!r}]
from exporter import cli
cli.main()
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_verify_needs_no_torch(onnx_artifact: Artifact, runtime: str) -> None:
    arguments = ["verify", str(onnx_artifact.path), "--backend", runtime, "--threads", "1"]
    result = python("-c", BLOCKED.format(arguments=arguments))
    assert result.code == 0, result.stderr
    path, _, record = result.stdout.split(": ")
    assert (path, record.split()[0], result.stdout.count("\n")) == (str(onnx_artifact.path), runtime, 1)


def test_a_missing_library_is_named_with_its_remedy(pt2_artifact: Artifact) -> None:
    result = python("-c", BLOCKED.format(arguments=["verify", str(pt2_artifact.path)]))
    assert result.code == 5, result.stderr
    (error,) = errors(result)
    assert "pip install" in error


def test_verify_answers_in_json_and_notices_tampering(older: Path) -> None:
    path = older / "resnet20.onnx"
    assert json.loads(here(main, "verify", path, "--json").stdout)["agreement"] == 1.0
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    result = here(main, "verify", path, "--json")
    assert (result.code, result.stdout) == (3, "")
    assert error_codes(result.stderr) == ["file-digest-mismatch"]


def test_inspect_answers_for_a_foreign_file(older: Path) -> None:
    foreign = older / "foreign.onnx"
    (older / "resnet20.onnx").rename(foreign)
    data = json.loads(here(main, "inspect", foreign, "--json").stdout)
    assert data["manifest"] is None
    assert re.search(r"^manifest +none", here(main, "inspect", foreign).stdout, re.MULTILINE)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three image files, of which the second is cut off."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.jpg")]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((40, 50, 3), number * 100, np.uint8)).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    return paths


def test_predict_answers_around_a_bad_image(onnx_artifact: Artifact, photos: list[Path]) -> None:
    result = rexport("predict", onnx_artifact.path, *photos)
    assert result.code == 1
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [str(photos[0]), str(photos[2])]
    (error,) = errors(result)
    assert str(photos[1]) in error
    answers = json.loads(here(main, "predict", onnx_artifact.path, *photos, "--json", "--top", "2").stdout)
    assert [answer["path"] for answer in answers] == [str(path) for path in photos]
    assert [len(answer["predictions"]) for answer in answers] == [2, 0, 2]
    assert error_codes(result.stderr) == [answers[1]["error_code"]]
    assert str(photos[1]) in answers[1]["error"]


def test_predict_without_labels_prints_nothing(onnx_artifact: Artifact, photos: list[Path]) -> None:
    result = here(main, "predict", onnx_artifact.path, photos[1])
    assert (result.code, result.stdout) == (1, "")
