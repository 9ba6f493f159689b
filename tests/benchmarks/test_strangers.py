"""The first commands of somebody who does not know ``rbench``: each is answered in one line, and that line leads on."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
import torch
from PIL import Image

from benchmarks.cli import main, rbench
from benchmarks.commands.options import named_options
from exporter.models import resnet
from exporter.models.variants import VARIANTS
from runtimes import Artifact
from tests.benchmarks.scripts import artifact
from tests.exporter.command_line import environment, errors, here, python
from tests.exporter.small import content
from tests.help_faults import command_paths
from tests.processes import default_interrupt
from tests.refusals import error_codes

DEVICE_LIMIT_S = 2.0
"""Of processor time, within which a command says that there is no GPU."""

COMMANDS = {path[1:]: command for path, command in command_paths("rbench", rbench)}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, onnx_artifact: Artifact) -> Path:
    """What lies in the stranger's folder: checkpoints, a photo, an artifact, and a copy of its model file alone."""
    folder = tmp_path_factory.mktemp("desk")
    rows = {
        "best.pth": VARIANTS["resnet20"],
        "deep.pth": VARIANTS["resnet32"],
        "twelve.pth": replace(VARIANTS["resnet20"], classes=12),
        "grey.pth": replace(VARIANTS["resnet20"], in_channels=1),
        "clear.pth": replace(VARIANTS["resnet20"], shortcut="B"),
    }
    for name, row in rows.items():
        torch.save({"state_dict": resnet.build(row).state_dict(), "epoch": 3}, folder / name)
    Image.new("RGB", (40, 40)).save(folder / "photo.png")
    for path in onnx_artifact.path.parent.iterdir():
        shutil.copy(path, folder)
    shutil.copy(onnx_artifact.path, folder / "moved.onnx")
    return folder


@contextmanager
def temporary_folder(folder: Path) -> Iterator[None]:
    """The empty folder is there meanwhile, and nothing may be put into it."""
    folder.mkdir()
    try:
        yield
    finally:
        folder.rmdir()


@dataclass(frozen=True)
class First:
    """A stranger's command, and how it is answered."""

    command: str
    exit_code: int
    code: str
    leads_on: str


TABLE = (
    First("runn", 2, "usage", "(did you mean run?)"),
    First("run resnet5O", 2, "variant-unknown", "(did you mean resnet50?)"),
    First("tune vgg16", 2, "variant-unknown", "(rexport list shows all variants)"),
    First("run best.pth", 4, "variant-ambiguous", "(use resnet20 --weights best.pth or plain20 --weights best.pth)"),
    First("load best.pth", 4, "variant-ambiguous", "(use resnet20 --weights best.pth or "),
    First("tune deep.pth", 4, "variant-ambiguous", "(use resnet32 --weights deep.pth or "),
    First("run best.pth --weights bundled", 2, "weights-given-twice", "(omit one)"),
    First("load best.pth --key ema", 2, "weights-entry-absent", "(--key state_dict)"),
    First("run photo.png", 3, "file-not-model", "(rexport onnx, rexport torch and rexport tensorrt write"),
    First("run nothing.onnx", 6, "model-missing", "(rexport onnx VARIANT -o nothing.onnx)"),
    First("load nothing.onnx", 6, "model-missing", "(rexport onnx VARIANT -o nothing.onnx)"),
    First("run resnet20.onnx --quik", 2, "usage", "(did you mean --quick?)"),
    First("run resnet20.onnx --precision fp61", 2, "usage", "(did you mean fp16?)"),
    First("run resnet20.onnx --backend onxruntime", 2, "backend-unknown", "(did you mean onnxruntime?)"),
    First("run resnet20.onnx --baseline openvnio", 2, "backend-unknown", "(did you mean openvino?)"),
    First("run resnet20.onnx --backend tensorrt --device cuda", 5, "device-missing", "(--device cpu runs it"),
    First("load resnet20.onnx --backend pytorch", 2, "format-not-opened", "onnxruntime-rtx, openvino can)"),
    First("load resnet20.onnx --shape sever", 2, "usage", "(did you mean server?)"),
    First("run resnet20.onnx --data fashion-mnst", 2, "dataset-unknown", "(did you mean fashion-mnist?)"),
    First("run resnet20.onnx --data empty", 3, "dataset-empty", "(expected CLASS/IMAGE.jpg or"),
    First("run moved.onnx --data fashion-mnist", 4, "preprocessing-unknown", "(copy moved.onnx.json beside it, or"),
    First("run moved.onnx --precision int8", 2, "precision-needs-manifest", "(copy moved.onnx.json beside it, or"),
    First("tune moved.onnx", 2, "tuning-needs-manifest", "(copy moved.onnx.json beside it)"),
    First("run resnet20.onnx -o no/such", 6, "folder-missing", "(mkdir -p no)"),
    First("load resnet20.onnx --json no/such.jsonl", 6, "folder-missing", "(mkdir -p no)"),
    First("tune resnet20.onnx -o no/such.onnx", 6, "folder-missing", "(mkdir -p no)"),
    First("tune", 2, "usage", "(for example: rbench tune resnet20.onnx --max-drop 0.3)"),
    First("tune resnet20.onnx --backend pytorch", 2, "backend-not-tunable", "with rbench run)"),
    First("report", 2, "usage", "(for example: rbench report results/ -o report.html)"),
    First("report empty", 3, "results-missing", "(rbench run -o DIR makes the one, rbench paper the other)"),
    First("report resnet20.onnx", 3, "json-invalid", "(expected a row of rbench run in each line"),
    First("compare old.jsonl new.jsonl", 6, "results-file-missing", "(rbench run --json FILE or -o DIR writes"),
    First("merge old.jsonl", 2, "usage", "(for example: rbench merge first/ second/ -o both.jsonl)"),
    First("merge old.jsonl -o no/such.jsonl", 6, "folder-missing", "(mkdir -p no)"),
    First("paper traine resnet20", 2, "usage", "(did you mean train?)"),
    First("paper train resnet2O", 2, "variant-unknown", "(did you mean resnet20?)"),
    First("paper depth -o no/such", 6, "folder-missing", "(mkdir -p no)"),
    First("run resnet20 --weights deep.pth", 4, "other-variant", "(use resnet32)"),
    First(
        "run resnet20 --weights twelve.pth --data fashion-mnist", 4, "data-class-count",
        "(use images of its 12 classes, with a folder for each)",
    ),
    First(
        "run resnet20 --weights grey.pth --data fashion-mnist", 2, "option-needs-statistics",
        "(rexport onnx takes --mean and --std, and rbench run its file)",
    ),
)  # fmt: skip


@pytest.mark.parametrize("first", TABLE, ids=lambda first: first.command)
def test_one_line_answers_and_leads_on(first: First, desk: Path) -> None:
    before = content(desk)
    with temporary_folder(desk / "empty"):
        result = here(main, *first.command.split(), cwd=desk)
    assert result.code == first.exit_code, result.stderr
    assert result.stdout == ""
    assert error_codes(result.stderr) == [first.code]
    assert first.leads_on in errors(result)[0]
    assert content(desk) == before
    assert foreign_options(first.command.split(), errors(result)[0]) == []


def foreign_options(words: list[str], line: str) -> list[str]:
    """The options that an error names without their command, and that the command which was typed does not have."""
    command = next(
        (COMMANDS[tuple(words[:n])] for n in (2, 1) if tuple(words[:n]) in COMMANDS), click.Command("unknown")
    )
    own = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    return [name for name in named_options(line) if name not in own and name not in words]


def test_an_option_of_another_command_is_caught() -> None:
    assert foreign_options(["run", "x"], "no (use --num-classes 12)") == ["--num-classes"]
    assert foreign_options(["run", "x"], "no (--num-classes 12; rexport onnx takes --num-classes)") == []
    assert foreign_options(["paper", "train", "x"], "no (use --limit 12 or --backend x)") == ["--backend"]


@pytest.mark.parametrize("words", [(), ("paper",)])
def test_a_group_alone_prints_its_help(words: tuple[str, ...]) -> None:
    result = here(main, *words)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Usage: {' '.join(('rbench', *words))} [OPTIONS] COMMAND")
    asked = here(main, *words, "-h")
    assert (asked.code, asked.stdout, asked.stderr) == (0, result.stderr, "")


def test_the_classes_are_those_of_the_weights(desk: Path) -> None:
    """A checkpoint of other classes than the variant's row is measured, as its export would need an option."""
    short = ("--backend", "onnxruntime", "--duration", "0.02", "--processes", "1", "--rounds", "2", "--no-roofline")
    result = here(main, "run", "resnet20", "--weights", "twelve.pth", "--threads", "1", *short, cwd=desk)
    assert result.code == 0, result.stderr
    assert "twelve.pth: the tensors match resnet20 with 12 classes" in result.stderr
    assert "onnxruntime" in result.stdout
    assert "pytorch" not in result.stdout.split("Environment")[0]


def test_a_checkpoint_is_measured_under_its_own_name(desk: Path) -> None:
    short = ("--backend", "onnxruntime", "--duration", "0.02", "--processes", "1", "--rounds", "2", "--no-roofline")
    result = here(main, "run", "clear.pth", "--threads", "1", *short, cwd=desk)
    assert result.code == 0, result.stderr
    assert "warning[variant-recognised]: clear.pth: " in result.stderr
    assert "clear.pth" in result.stdout


NO_DEVICE = """
import sys
sys.argv = ["rbench", *{arguments!r}]
from benchmarks import cli
try:
    cli.main()
finally:
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "PIL", "rich")
    print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("command", ["run", "run resnet20.onnx", "load resnet20.onnx", "tune resnet20"])
def test_no_gpu_is_said_at_once(command: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = python("-c", NO_DEVICE.format(arguments=[*command.split(), "--device", "cuda"]), cwd=desk)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (result.code, result.stdout) == (5, "[]\n"), result.stderr
    assert error_codes(result.stderr) == ["device-missing"]
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.endswith("(--device cpu runs it on the processor)\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < DEVICE_LIMIT_S


MISSING = """
import sys
sys.modules[{missing!r}] = None
sys.argv = ["rbench", *{arguments!r}]
from benchmarks import cli
cli.main()
"""


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("run resnet20", "torch", "export"),
        ("run resnet20", "onnxscript", "export"),
        ("report x", "matplotlib", "report"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(command: str, missing: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/results.jsonl").touch()
    result = python("-c", MISSING.format(missing=missing, arguments=command.split()), cwd=tmp_path)
    lines = errors(result)
    assert len(lines) == 1, result.stderr
    assert f"pip install 'rexport[{extra}]'" in lines[0]
    assert result.code == 5


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    with default_interrupt():
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cli", *words],
            cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def test_ctrl_c_before_the_first_result_lists_the_plan(tmp_path: Path) -> None:
    artifact(tmp_path)
    process = start(
        "run",
        "net.fake",
        "--batch",
        "1",
        "--batch",
        "2",
        "--duration",
        "60",
        "-o",
        "out",
        "--no-roofline",
        cwd=tmp_path,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Plan: ")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "fake fp32, batch 1, 2: skipped: not reached: the run ended early" in stdout
    *_, count, last = stderr.splitlines()
    assert (count, last) == ("0 of 4 configurations were measured; they are in out/results.jsonl", "interrupted")


def _may_mount() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="this user may not mount a small disk in a namespace of its own")
def test_a_full_disk_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    artifact(tmp_path)
    script = f"""
    mount -t tmpfs -o size=4k none {tmp_path}/disk
    {sys.executable} -m benchmarks.cli run {tmp_path}/net.fake --backend fake --duration 0.02 --processes 1 \
        --no-roofline -o {tmp_path}/disk
    echo code $?
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "code 6", done.stderr
    assert error_codes(done.stderr) == ["file-access-failed"]
    assert os.strerror(28) in done.stderr
    assert f"(df -h {tmp_path}/disk shows the space that is left)" in done.stderr


def test_a_folder_without_permission_is_said_as_such(tmp_path: Path) -> None:
    """Root goes past permissions, unless the capability to do so is taken away."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    artifact(tmp_path)
    command = [sys.executable, "-m", "benchmarks.cli", "run", str(tmp_path / "net.fake"), "-o", f"{folder}/out"]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert error_codes(done.stderr) == ["file-access-failed"]
    assert (done.returncode, done.stdout) == (6, "")
    assert f"(ls -ld {folder} shows who may use it)" in done.stderr
    assert list(folder.iterdir()) == []
