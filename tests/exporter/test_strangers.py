"""The first commands of somebody who does not know rexport: each is answered in one line, and that line leads on."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image

from exporter.cli import main
from exporter.models import resnet
from exporter.models.variants import VARIANTS, customise
from runtimes import Artifact
from tests.exporter.command_line import environment, errors, here, python, rexport, with_rexport
from tests.exporter.small import content
from tests.processes import default_interrupt
from tests.refusals import error_codes

DEVICE_LIMIT_S = 2.0
"""Within which a command says that there is no GPU."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, onnx_artifact: Artifact) -> Path:
    """What lies in the stranger's folder: checkpoints, a photo, an artifact, a copy of its model file alone, and a
    model that says nothing about itself."""
    folder = tmp_path_factory.mktemp("desk")
    for name, row in (("best.pth", VARIANTS["resnet20"]), ("deep.pth", VARIANTS["resnet32"])):
        torch.save({"state_dict": resnet.build(row).state_dict(), "epoch": 3}, folder / name)
    state = resnet.build(customise(VARIANTS["resnet20"], shortcut="B")).state_dict()
    torch.save({"model": state, "ema": state}, folder / "clear.pth")
    torch.save({"model": state, "net": state}, folder / "twice.pth")
    torch.save({name: state[name] for name in state if "fc" not in name}, folder / "features.pth")
    Image.new("RGB", (40, 40)).save(folder / "photo.png")
    for path in onnx_artifact.path.parent.iterdir():
        shutil.copy(path, folder)
    shutil.copy(onnx_artifact.path, folder / "moved.onnx")
    foreign = onnx.load(onnx_artifact.path)
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
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
    """A stranger's command, how it is answered, and commands that the answer leads to, which work."""

    command: str
    exit_code: int
    code: str
    leads_on: str
    then: tuple[str, ...] = ()


TABLE = (
    First("onnx", 2, "usage", "(for example: rexport onnx resnet20 --weights bundled --precision int8 -o models/)"),
    First("onnx resnet5O", 2, "variant-unknown", "(did you mean resnet50?)", ("info resnet50",)),
    First("info RESNET-5O", 2, "variant-unknown", "(did you mean resnet50?)", ("info RESNET-50",)),
    First("onnx vgg16", 2, "variant-unknown", "(rexport list shows all variants)", ("info resnet18",)),
    First("oonnx resnet20", 2, "usage", "(did you mean onnx?)"),
    First("export resnet20", 2, "usage", "(rexport --help)", ("--help",)),
    First("onnx resnet20 --precison fp16", 2, "usage", "(did you mean --precision or --recipe?)"),
    First("onnx resnet20 --precision fp61", 2, "usage", "(did you mean fp16?)"),
    First(
        "onnx best.pth", 4, "variant-ambiguous", "(use resnet20 --weights best.pth or plain20 --weights best.pth)",
        ("inspect best.pth",),
    ),
    First("torch deep.pth", 4, "variant-ambiguous", "(use resnet32 --weights deep.pth or "),
    First("tensorrt best.pth", 4, "variant-ambiguous", "(use resnet20 --weights best.pth or "),
    First("onnx twice.pth", 4, "weights-entries-ambiguous", "(--key model or --key net)", ("inspect twice.pth --key net",)),  # noqa: E501
    First("onnx clear.pth --key emma", 2, "weights-entry-absent", "(--key model or --key ema)"),
    First("onnx clear.pth --strip-prefix modle.", 2, "prefix-absent", "(the names begin with conv1., bn1., layer1.,"),
    First("onnx clear.pth --weights bundled", 2, "weights-given-twice", "(omit one)"),
    First("onnx features.pth", 4, "classifier-missing", "(--output features exports the trunk)"),
    First("info clear.pth", 2, "variant-is-file", "(rexport inspect clear.pth tells", ("inspect clear.pth", "list")),
    First("onnx photo.png", 3, "weights-unrecognised", "(use a .safetensors file or a file of torch.save)"),
    First("onnx gone.pth", 6, "file-access-failed", "gone.pth: cannot read: No such file"),
    First("onnx resnet20 -o x.onnx --weights bundeld", 6, "file-access-failed", "(did you mean bundled?)"),
    First("onnx resnet20 -o x.onnx --weights deep.pth", 4, "other-variant", "(use resnet32)", ("info resnet32",)),
    First("onnx resnet20 -o x.onnx --data fashion-mnst", 2, "dataset-unknown", "(did you mean fashion-mnist?)"),
    First("onnx resnet20 -o x.onnx --data empty", 3, "dataset-empty", "(expected CLASS/IMAGE.jpg or"),
    First(
        "onnx resnet20 -o x.onnx --weights best.pth --precision int8", 2, "calibration-data-missing",
        "(--calibration DIR names a folder of training images)",
    ),
    First("onnx resnet20", 2, "target-exists", "(--force replaces it, -o FILE names another file)"),
    First("onnx resnet20 -o no/such/x.onnx", 6, "folder-missing", "(mkdir -p no/such)"),
    First("predict resnet20.onnx photo.png --backend onxruntime", 2, "backend-unknown", "(did you mean onnxruntime?)"),
    First("predict resnet20.onnx empty", 2, "folder-without-images", "(looked for "),
    First(
        "predict foreign.onnx photo.png", 2, "statistics-unknown", "ImageNet's are --mean 0.485,0.456,0.406 --std ",
        ("predict foreign.onnx photo.png --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",),
    ),
    First("verify moved.onnx", 3, "vectors-absent", "(copy moved.onnx.json and its vectors here, or "),
    First("predict resnet20.onnx photo.png --csv --json", 2, "usage", "(rexport predict --help)"),
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
    for command in first.then:
        assert here(main, *command.split(), cwd=desk).code == 0


def test_the_bare_command_and_its_groups_print_their_help() -> None:
    result = rexport()
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: rexport [OPTIONS] COMMAND")
    assert "rexport onnx resnet20 --weights bundled" in result.stderr
    asked = rexport("-h")
    assert (asked.code, asked.stdout, asked.stderr) == (0, result.stderr, "")


def test_the_hint_is_a_command_line_that_works(desk: Path, tmp_path: Path) -> None:
    """The one of a checkpoint of two networks, and the one of a missing folder, as a shell runs them."""
    shutil.copy(desk / "best.pth", tmp_path)
    shell = with_rexport(tmp_path)
    first = here(main, "onnx", "best.pth", cwd=tmp_path)
    hint = f"rexport onnx {_in_parentheses(errors(first)[0]).partition(' or ')[0].removeprefix('use ')}"
    missing = here(main, *hint.split()[1:], "-o", "a b/x.onnx", cwd=tmp_path)
    command = f"{_in_parentheses(errors(missing)[0])} && {hint} -o 'a b/x.onnx'"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a b/x.onnx\n"), done.stderr


def test_a_checkpoint_is_exported_under_its_own_name(desk: Path, tmp_path: Path) -> None:
    result = here(main, "onnx", "clear.pth", "--key", "model", "--size", "8", "-o", f"{tmp_path}/", cwd=desk)
    assert (result.code, result.stdout) == (0, f"{tmp_path}/clear.onnx\n"), result.stderr
    assert "warning[variant-recognised]: clear.pth: " in result.stderr
    manifest = Artifact.read(tmp_path / "clear.onnx").manifest
    assert manifest is not None
    assert (manifest.name, manifest.weights.source, manifest.weights.key) == ("resnet20", "clear.pth", "model")
    assert (manifest.variant["shortcut"], manifest.weights.assumed) == ("B", ())
    inspected = here(main, "inspect", tmp_path / "clear.onnx")
    assert re.search(r"^read as +key model, ", inspected.stdout, re.MULTILINE)


def test_a_checkpoint_is_inspected(desk: Path) -> None:
    text = here(main, "inspect", "clear.pth", cwd=desk)
    assert (text.code, text.stderr) == (0, "")
    for line in (r"weights +clear.pth, entry model", r"averaged weights +ema", r"variant +resnet20", r"classes +10"):
        assert re.search(f"^{line}$", text.stdout, re.MULTILINE), text.stdout
    both = here(main, "inspect", "best.pth", "--json", cwd=desk)
    facts = json.loads(both.stdout)
    assert (facts["variants"], facts["key"], facts["left_out"]) == (["resnet20", "plain20"], "state_dict", {})


def test_parts_of_a_checkpoint_need_one(desk: Path) -> None:
    result = here(main, "inspect", "resnet20.onnx", "--key", "ema", cwd=desk)
    assert re.findall(r"^warning\[([a-z-]+)\]: .*--key$", result.stderr, re.MULTILINE) == ["options-without-effect"]


def _in_parentheses(line: str) -> str:
    found = re.search(r"\(([^()]*)\)$", line)
    assert found is not None, line
    return found[1]


@pytest.mark.parametrize(
    ("options", "notice"),
    [
        (["--calibration", "photos", "--target", "tensorrt"], "no effect in fp32: --calibration, --target"),
        (["--gate-images", "5", "--calibration-images", "7"], "no effect in fp32: --calibration-images, --gate-images"),
        (["--precision", "fp16", "--gate-images", "5", "--calibration", "x"], "no effect in fp16: --calibration"),
    ],
)
def test_options_without_effect_are_a_notice(options: Sequence[str], notice: str, tmp_path: Path) -> None:
    result = here(main, "onnx", "resnet20", "--size", "8", *options, "-o", f"{tmp_path}/new/")
    assert (result.code, result.stdout) == (0, f"{tmp_path}/new/resnet20.onnx\n"), result.stderr
    lines = result.stderr.splitlines()
    assert f"warning[options-without-effect]: {notice}" in lines
    assert f"notice[folder-made]: created the folder {tmp_path}/new" in lines


def test_images_without_data_are_a_notice(desk: Path) -> None:
    result = here(main, "explain", "resnet20.onnx", "--images", "3", cwd=desk)
    assert result.code == 0
    assert "warning[options-without-effect]: no effect without --data: --images" in result.stderr.splitlines()


def test_data_of_an_explanation_are_read_or_said_to_be_unused(desk: Path) -> None:
    missing = here(main, "explain", "resnet20.onnx", "--data", "./nosuch", cwd=desk)
    assert (missing.code, error_codes(missing.stderr)) == (6, ["dataset-missing"])
    result = here(main, "explain", "resnet20.onnx", "--data", "fashion-mnist", "--images", "3", cwd=desk)
    assert result.code == 0
    line = "warning[options-without-effect]: no effect without a comparison with fp32: --data, --images"
    assert line in result.stderr.splitlines()


NO_DEVICE = """
import sys
sys.argv = ["rexport", *{arguments!r}]
from exporter import cli
try:
    cli.main()
finally:
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "PIL", "rich")
    print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("command", ["verify moved.onnx", "predict moved.onnx photo.png", "explain moved.onnx"])
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
for name in {missing!r}:
    sys.modules[name] = None
sys.argv = ["rexport", *{arguments!r}]
from exporter import cli
cli.main()
"""


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("onnx resnet20 -o x.onnx", "torch", "export"),
        ("onnx resnet20 -o x.onnx", "onnxscript", "export"),
        ("predict resnet20.onnx photo.png", "PIL", "images"),
        ("predict resnet20.onnx photo.png --backend openvino", "openvino", "openvino"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(command: str, missing: str, extra: str, desk: Path) -> None:
    result = python("-c", MISSING.format(missing=[missing], arguments=command.split()), cwd=desk)
    lines = errors(result)
    assert len(lines) == 1, result.stderr
    assert f"pip install 'rexport[{extra}]'" in lines[0]
    assert not (desk / "x.onnx").exists()


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "exporter.cli", "onnx", "resnet56", "-o", f"{tmp_path}/"]
    with default_interrupt():
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("warning[untrained]: ")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "\ninterrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_said_as_such() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "exporter.cli", "list"], env=environment(), stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 6
    assert error_codes(done.stderr) == ["output-not-written"]
    assert done.stderr.endswith("(df -h shows the space that is left)\n")
    assert len(done.stderr.splitlines()) == 1


def _may_mount() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="this user may not mount a small disk in a namespace of its own")
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    script = f"""
    mount -t tmpfs -o size=64k none {tmp_path}
    {sys.executable} -m exporter.cli onnx resnet20 --weights bundled -o {tmp_path}/
    echo code $?; ls -A {tmp_path}
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "code 6\n", done.stderr
    assert error_codes(done.stderr) == ["file-access-failed"]
    assert os.strerror(28) in done.stderr
    assert f"(df -h {tmp_path} shows the space that is left)" in done.stderr


def test_a_folder_without_permission_is_said_as_such(tmp_path: Path) -> None:
    """Root goes past permissions, unless the capability to do so is taken away."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    command = [sys.executable, "-m", "exporter.cli", "onnx", "resnet20", "-o", f"{folder}/x.onnx"]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "")
    assert error_codes(done.stderr) == ["file-access-failed"]
    assert done.stderr.endswith(f"Permission denied (ls -ld {folder} shows who may use it)\n")
    assert list(folder.iterdir()) == []
