"""No text of a stranger's file acts where it is shown: all commands, in each form of their output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmarks.cli import main as rbench_main
from benchmarks.cli import rbench
from benchmarks.report.csv_export import csv_text
from exporter.cli import cli, main
from runtimes import Artifact
from tests.benchmarks.report_html.hostile import hostile_results
from tests.benchmarks.results import REFERENCE, change
from tests.exporter.command_line import Result, here
from tests.help_faults import command_paths
from tests.hostile import ATTACKS, LONGEST_LINE, MARK, READABLE, Folder, elements_of, faults_of_lines, fill
from tests.screens import watch

PROGRAMS = {"rexport": (cli, main), "rbench": (rbench, rbench_main)}
LONGEST = {"lines": LONGEST_LINE, "json": 2_000_000, "csv": 2_000_000, "markdown": 20_000}
"""Characters in a line of a form."""


@dataclass(frozen=True)
class Call:
    """A command with a hostile argument.

    Attributes:
        words: The words, in which the names of ``Folder`` stand for paths.
        form: What standard output is: ``lines``, ``json``, ``csv`` or ``markdown``.
        readable: Whether the text that is to stay readable stands in the output.
    """

    words: str
    form: str = "lines"
    readable: bool = False


def _calls(*words: str) -> tuple[Call, ...]:
    return tuple(map(Call, words))


CALLS: dict[str, tuple[Call, ...]] = {
    "rexport onnx": _calls(
        "{checkpoint} -o out", "{strange} -o out", "{missing}", "resnet20 --weights {checkpoint} -o x.onnx"
    ),
    "rexport torch": _calls("{checkpoint} -o out", "{missing}"),
    "rexport tensorrt": _calls("{artifact} -o out", "{checkpoint}"),
    "rexport refit": _calls("{artifact} {artifact}", "{missing} {artifact}"),
    "rexport predict": (
        Call("{artifact} {image} {broken} --top 10", readable=True),
        Call("{artifact} {image} {broken} --top 10 --json", "json", readable=True),
        Call("{artifact} {image} {broken} --top 10 --csv", "csv", readable=True),
        Call("{artifact} {image} --backend {missing}"),
    ),
    "rexport verify": (
        *_calls("{artifact}", "{missing}", "{artifact} --url {missing}"), Call("{artifact} --json", "json"),
    ),
    "rexport inspect": (
        Call("{artifact}", readable=True), Call("{artifact} --json", "json", readable=True), Call("{checkpoint}"),
        *_calls("{checkpoint} --key {missing}", "{strange}", "{strange} --strip-prefix {missing}"),
        Call("{checkpoint} --key {missing} --json", "json"),
    ),
    "rexport explain": (*_calls("{artifact}", "{artifact} --against {missing}"), Call("{artifact} --json", "json")),
    "rexport label": _calls("{images} -a {artifact} -o {missing}", "{missing} -a {artifact} -o out"),
    "rexport serve": _calls("{missing}", "{missing}={missing}"),
    "rexport triton": (
        *_calls("{artifact} -o repository", "{artifact} -o repository --name {missing}", "{artifact} -o new --name x"),
        Call("{artifact} -o repository --name x --json", "json"),
    ),
    "rexport manifests kserve": _calls("{artifact} --name x", "{artifact} --name {missing}"),
    "rexport manifests rayservice": _calls("{artifact} --name x"),
    "rexport manifests rayjob": _calls("{artifact} --name x --source /data/{missing} --out /data/out"),
    "rexport manifests compose": _calls("{artifact} --name x"),
    "rexport manifests dockerfile": _calls("{artifact} --name x"),
    "rexport web": _calls("{artifact} -o page.html --runtime {missing}"),
    "rexport info": _calls("{missing}"),
    "rexport list": _calls("{missing}"),
    "rexport completion": _calls("{missing}"),
    "rbench run": _calls("{missing}", "{artifact} --backend {missing}"),
    "rbench load": _calls("{missing}"),
    "rbench tune": _calls("{missing}"),
    "rbench report": (
        Call("{results} {findings} --markdown -", "markdown"),
        Call("{results} --title {missing} --markdown -", "markdown"),
        Call("{missing}"),
    ),
    "rbench compare": (
        Call("{results} {results}"), Call("{results} {results} --json", "json"),
        Call("{results} {results} --markdown", "markdown"), Call("{results} {missing}"),
    ),
    "rbench merge": _calls("{results} -o merged.jsonl", "{missing} -o merged2.jsonl"),
    "rbench doctor": _calls("{missing}"),
    "rbench completion": _calls("{missing}"),
    **{f"rbench paper {name}": _calls("{missing}") for name in
       ("train", "degradation", "depth", "shortcuts", "responses", "gradients", "identity")},
}  # fmt: skip
"""Of each command what is called. A new command has to be added."""


def test_every_command_of_both_programs_is_called() -> None:
    known = {
        " ".join(path)
        for name, (root, _) in PROGRAMS.items()
        for path, command in command_paths(name, root)
        if not hasattr(command, "commands")
    }
    assert set(CALLS) == known


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, onnx_artifact: Artifact) -> Folder:
    return fill(tmp_path_factory.mktemp("stranger"), onnx_artifact.path)


def call(command: str, call: Call, stranger: Folder, cwd: Path) -> Result:
    """Runs the command in a folder of its own."""
    program, *names = command.split()
    values = {
        name: str(getattr(stranger, name))
        for name in ("artifact", "checkpoint", "strange", "image", "results", "findings")
    }
    values |= {"missing": f"gone{stranger.artifact.name}", "images": str(stranger.path)}
    values["broken"] = str(stranger.path / f"broken{stranger.image.name}")
    words = [word.format(**values) for word in call.words.split()]
    return here(PROGRAMS[program][1], *names, *words, cwd=cwd)


@pytest.mark.parametrize(
    ("command", "made"), [(command, made) for command, calls in CALLS.items() for made in calls],
    ids=lambda value: value if isinstance(value, str) else value.words,
)  # fmt: skip
def test_nothing_in_it_acts(command: str, made: Call, stranger: Folder, tmp_path: Path) -> None:
    result = call(command, made, stranger, tmp_path)
    assert faults_of_lines(result.stderr) == []
    assert "internal" not in re.findall(r"^error\[([a-z-]+)\]", result.stderr, re.MULTILINE), result.stderr
    assert faults_of_lines(result.stdout, LONGEST[made.form]) == []
    assert faults_of_form(made.form, result.stdout, tmp_path) == []
    if made.readable:
        shown = json.dumps(json.loads(result.stdout), ensure_ascii=False) if made.form == "json" else result.stdout
        assert READABLE in shown
    assert not list(tmp_path.rglob("attacked"))


@pytest.mark.slow
def test_no_element_of_an_attack_stands_in_a_page(stranger: Folder, tmp_path: Path) -> None:
    result = call("rbench report", Call("{results} {findings} -o page.html"), stranger, tmp_path)
    assert result.code == 0, result.stderr
    assert faults_of_form("page", "", tmp_path) == []


def formulas(text: str, folder: Path) -> list[str]:
    """The cells that a spreadsheet program takes for formulas: in Gnumeric's own format they have no type of value."""
    if shutil.which("ssconvert") is None:
        pytest.skip("no spreadsheet program is here: apt-get install --no-install-recommends gnumeric")
    (folder / "in.csv").write_text(text, encoding="utf-8")
    command = ["ssconvert", "-T", "Gnumeric_XmlIO:sax:0", "in.csv", "out.xml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"HOME": str(folder)})
    content = (folder / "out.xml").read_text(encoding="utf-8")
    assert "<gnm:Cell " in content
    return re.findall(r"<gnm:Cell (?![^>]*ValueType)[^>]*>([^<]*)", content)


@pytest.mark.slow
def test_a_spreadsheet_program_finds_no_formula(stranger: Folder, tmp_path: Path) -> None:
    assert formulas("a,b\n=1+1,-5\n", tmp_path) == ["=1+1"]
    answered = call("rexport predict", Call("{artifact} {image} --top 10 --csv"), stranger, tmp_path)
    assert formulas(answered.stdout, tmp_path) == []
    assert formulas(csv_text(hostile_results()), tmp_path) == []
    assert formulas(csv_text([change(REFERENCE, subject=attack, weights=attack) for attack in ATTACKS]), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["predict", "inspect", "explain"])
def test_a_real_terminal_shows_escapes(form: str, stranger: Folder) -> None:
    words = [str(stranger.artifact), *([str(stranger.image), "--top", "10"] if form == "predict" else [])]
    session = watch([sys.executable, "-m", "exporter.cli", form, *words], columns=100)
    assert session.code == 0
    for sequence in (b"\x1b[2J", b"\x1b]", b"\xc2\x9b", b"\x9b2J", "\u202e".encode(), b"\a"):
        assert sequence not in session.raw
    assert not any(line.startswith(MARK) for frame in session.frames for line in frame)
    assert r"\x1b[2J" in "".join(session.lines)


def faults_of_form(form: str, text: str, folder: Path) -> list[str]:
    """What a program that reads this form would make of the attacks."""
    match form:
        case "csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            return [f"a formula: {cell[:40]!a}" for cell in cells if cell.lstrip()[:1] in tuple("=+@")]
        case "markdown":
            return faults_of_markdown(text)
        case "page":
            (page,) = folder.glob("*.html")
            markup = page.read_text(encoding="utf-8")
            return [element for element in elements_of(markup) if MARK in element or "attacked" in element]
    return []


def faults_of_markdown(text: str) -> list[str]:
    """The elements that a renderer makes of what only the attacks hold."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    return elements_of(rendered)


BROKEN = (
    ("lines", "a\x1b[2J"), ("lines", f"a\n{MARK}"), ("lines", "a\u202e"), ("lines", "W" * 6000),
    ("csv", "a,=1+1\n"), ("csv", '"\t=1",2\n'),
    ("markdown", "<details>\n<summary>\\<img src=x></summary>\n\n</details>\n"), ("markdown", "- a\n\n    <b>x</b>\n"),
    ("markdown", "| a |\n| - |\n| [x](http://a) |\n"), ("markdown", "~~x~~ *x*"),
)  # fmt: skip


@pytest.mark.parametrize(("form", "text"), BROKEN)
def test_an_output_that_acts_is_caught(form: str, text: str, tmp_path: Path) -> None:
    assert faults_of_lines(text) + faults_of_form(form, text, tmp_path)
