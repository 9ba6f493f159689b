"""``rexport triton`` and ``rexport verify --url`` as commands: what they print, and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest

from exporter.cli import main
from runtimes import Artifact
from tests.exporter.command_line import Result, here
from tests.refusals import error_codes


def triton(*arguments: str | Path) -> Result:
    return here(main, "triton", *arguments)


def verify(*arguments: str | Path) -> Result:
    return here(main, "verify", *arguments)


def ignored(done: Result) -> list[str]:
    """The options that a command said to have no effect."""
    return re.findall(r"^warning\[options-without-effect\]: .*: (.+)$", done.stderr, re.MULTILINE)


def test_the_folders_are_the_result_and_the_commands_a_notice(onnx_artifact: Artifact, tmp_path: Path) -> None:
    repository = tmp_path / "a repository"
    done = triton(onnx_artifact.path, "-o", repository, "--delay", "1.5")
    assert (done.code, done.stdout) == (0, f"{repository}/resnet20/1\n")
    start, container, check = (line.strip() for line in done.stderr.splitlines()[1::2])
    assert f"--model-repository={repository}" in shlex.split(start)
    assert shlex.split(container)[:3] == ["docker", "run", "--rm"]
    assert shlex.split(check)[:3] == ["rexport", "verify", str(repository)]
    again = triton(onnx_artifact.path, "-o", repository, "--delay", "1.5", "--json")
    shown = json.loads(again.stdout)
    assert [row["existed"] for row in shown["versions"]] == [True]
    assert shown["commands"] == {"start": start, "container": container, "check": check}
    assert "max_queue_delay_microseconds: 1500" in (repository / "resnet20" / "config.pbtxt").read_text()


def test_several_artifacts_are_several_models(onnx_artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "other")
    alike = triton(onnx_artifact.path, tmp_path / "other" / "resnet20.onnx", "-o", tmp_path / "repository")
    assert (alike.code, error_codes(alike.stderr)) == (2, ["triton-names-equal"])
    for file in (tmp_path / "other").iterdir():
        if not file.name.endswith(".npz"):
            file.rename(file.with_name(file.name.replace("resnet20", "second")))
    both = (onnx_artifact.path, tmp_path / "other" / "second.onnx")
    named = triton(*both, "-o", tmp_path / "repository", "--name", "net")
    assert (named.code, error_codes(named.stderr)) == (2, ["triton-name-for-several"])
    done = triton(*both, "-o", tmp_path / "repository")
    assert [Path(line).parent.name for line in done.stdout.splitlines()] == ["resnet20", "second"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-o", "x"], "file-access-failed"),
        (["-o", "x", "--version", "0"], "usage"),
        (["-o", "x", "--backend", "onnx"], "usage"),
        ([], "usage"),
    ],
)
def test_a_wrong_order_is_refused(arguments: list[str], code: str, tmp_path: Path) -> None:
    done = here(main, "triton", "absent.onnx", *arguments, cwd=tmp_path)
    assert error_codes(done.stderr) == [code]
    assert list(tmp_path.iterdir()) == []


def test_verify_needs_a_server_for_a_repository(onnx_artifact: Artifact, tmp_path: Path) -> None:
    triton(onnx_artifact.path, "-o", tmp_path / "repository")
    bare = verify(tmp_path / "repository")
    assert (bare.code, error_codes(bare.stderr)) == (2, ["usage"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        late = verify(tmp_path / "repository", "--url", url, "--timeout", "0.2")
        assert (late.code, error_codes(late.stderr)) == (5, ["server-timeout"])
        empty = verify(tmp_path, "--url", url)
        assert (empty.code, error_codes(empty.stderr)) == (3, ["repository-empty"])
        other = verify(tmp_path / "repository", "--url", url, "--model", "resnet2")
        assert (other.code, error_codes(other.stderr)) == (2, ["repository-lacks-model"])
    absent = verify(onnx_artifact.path, "--url", url, "--backend", "openvino", "--threads", "1")
    assert (absent.code, error_codes(absent.stderr)) == (5, ["server-unreachable"])
    assert ignored(absent) == ["--backend, --threads"]


def test_without_a_url_its_options_have_no_effect(onnx_artifact: Artifact) -> None:
    done = verify(onnx_artifact.path, "--backend", "onnxruntime", "--threads", "1", "--timeout", "3")
    assert done.code == 0
    assert ignored(done) == ["--timeout"]
