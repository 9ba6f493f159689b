"""Completion, by click's protocol for each shell, and in a real bash that runs the line of ``rexport completion``."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli import cli, main
from exporter.commands.completion import LINES, completion_command
from exporter.models.variants import VARIANTS
from runtimes.backends.registry import available_backends
from tests.exporter.command_line import here, with_rexport


@pytest.fixture(scope="module")
def with_command(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in whose path ``rexport`` is this repository's."""
    return with_rexport(tmp_path_factory.mktemp("bin"))


def complete(*words: str) -> set[tuple[str, str]]:
    """What click offers a shell for the last of the words: kind and value of each item."""
    command = " ".join(["rexport", *words[:-1], words[-1] or "''"])
    answer = CliRunner(
        env={"_REXPORT_COMPLETE": "bash_complete", "COMP_WORDS": command, "COMP_CWORD": str(len(words))}
    ).invoke(cli, prog_name="rexport")
    pairs = (line.split(",", 1) for line in answer.output.splitlines() if line)
    return {(kind, value) for kind, value in pairs}


def plain(*words: str) -> set[str]:
    return {value for kind, value in complete(*words) if kind == "plain"}


def test_commands_and_options_are_completed() -> None:
    assert plain("ver") == {"verify"}
    assert plain("onnx", "--prec") == {"--precision"}
    assert "--runtime" in plain("verify", "--runt")


def test_names_are_completed() -> None:
    assert plain("onnx", "") == set(VARIANTS)
    assert plain("onnx", "ResNet11") == {"resnet110"}
    assert plain("onnx", "wide") == {"wide_resnet50_2", "wide_resnet101_2"}
    assert plain("verify", "m.onnx", "--backend", "") == {backend.name for backend in available_backends()}
    assert plain("onnx", "resnet20", "--data", "") == {"fashion-mnist", "cifar10:"}
    assert plain("onnx", "resnet20", "--weights", "b") == {"bundled"}
    assert plain("onnx", "resnet20", "--precision", "FP") == {"fp32", "fp16", "fp8"}
    assert plain("onnx", "resnet20", "--shortcut", "a") == {"A"}
    assert plain("completion", "") == set(LINES)


@pytest.mark.parametrize(
    "words",
    [
        ("verify", ""),
        ("predict", "m.onnx", ""),
        ("tensorrt", ""),
        ("onnx", "resnet20", "--weights", "be"),
        ("onnx", "resnet20", "--labels", ""),
        ("onnx", "resnet20", "-o", ""),
        ("onnx", "resnet20", "--calibration", "ph"),
    ],
)
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert "file" in {kind for kind, _ in complete(*words)}


@pytest.mark.parametrize("shell", LINES)
def test_each_shell_gets_its_line_and_its_script(shell: str, with_command: dict[str, str]) -> None:
    result = here(main, "completion", shell)
    assert (result.code, result.stderr) == (0, "")
    assert f"_REXPORT_COMPLETE={shell}_source" in result.stdout
    assert result.stdout.count("\n") == 1
    script = subprocess.run(
        ["rexport"],
        env=with_command | {"_REXPORT_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_rexport_completion" in script.stdout
    assert f"{shell}_complete" in script.stdout


def test_another_program_has_the_same_command() -> None:
    done = CliRunner().invoke(completion_command("rbench"), ["bash"])
    assert done.output == 'eval "$(_RBENCH_COMPLETE=bash_source rbench)"\n'


def test_on_a_terminal_the_file_for_the_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.commands.completion._is_terminal", lambda: True)
    done = CliRunner().invoke(completion_command("rexport"), ["zsh"])
    assert done.stderr == "add this line to ~/.zshrc: rexport completion zsh >> ~/.zshrc\n"


IN_BASH = """
eval "$(rexport completion bash)"
compopt() { echo option "$@"; }
for words in "rexport onnx resnet11" "rexport verify m.onnx --backend onnxruntime-" "rexport predict m"; do
    COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _rexport_completion rexport
    echo "$words:" "${COMPREPLY[@]}"
done
"""


def test_bash_runs_the_line(with_command: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", IN_BASH], env=with_command, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "option -o default",
        "rexport onnx resnet11: resnet110",
        "rexport verify m.onnx --backend onnxruntime-: onnxruntime-tensorrt onnxruntime-rtx",
        "option -o default",
        "rexport predict m:",
    ]


def test_tab_completes_in_an_interactive_bash(with_command: dict[str, str], tmp_path: Path) -> None:
    main_end, other = pty.openpty()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=other,
        stdout=other,
        stderr=other,
        cwd=tmp_path,
        env=with_command | {"TERM": "dumb", "HISTFILE": "", "PS1": "$ "},
        start_new_session=True,
    ) as shell:
        os.close(other)
        os.write(main_end, b'eval "$(rexport completion bash)"; echo re""ady\n')
        seen = _read_until(main_end, b"ready")
        os.write(main_end, b"rexport info resnet12\t")
        seen += _read_until(main_end, b"resnet1202")
        os.write(main_end, b"--json | grep -c 1202\n")
        seen += _read_until(main_end, b"\n1\r\n")
        os.write(main_end, b"exit\n")
        assert shell.wait(timeout=30) == 0, seen
    os.close(main_end)


def _read_until(terminal: int, mark: bytes, limit_s: float = 60) -> bytes:
    """What the terminal shows up to the mark."""
    seen, deadline = b"", time.monotonic() + limit_s
    while mark not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(terminal, 4096)
    return seen
