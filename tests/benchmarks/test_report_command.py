from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.analysis.figures import Figures
from benchmarks.commands.results import report
from benchmarks.records import findings
from benchmarks.records.store import ResultsFile
from benchmarks.report_html import svg
from runtimes.errors import ArtifactError, BackendUnavailableError, CompatibilityError, ResourceError, UsageError
from tests.benchmarks.paper.samples import degradation, responses
from tests.benchmarks.results import FASTER, REFERENCE, SKIPPED, change_facts, processes
from tests.refusals import refuses


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a run leaves it, beside which the command is called."""
    monkeypatch.chdir(tmp_path)
    return kept(tmp_path / "out", REFERENCE, FASTER, SKIPPED)


def kept(folder: Path, *results: Figures) -> Path:
    file = ResultsFile(folder / "results.jsonl")
    for figures in results:
        file.append(figures.result, figures.as_json())
    return folder


def called(*arguments: object) -> str:
    result = CliRunner().invoke(report, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)
    return result.stdout


def test_the_page_of_a_folder(results: Path) -> None:
    assert called(results) == "report.html\n"
    text = Path("report.html").read_text()
    assert " – rbench</title>" in text
    assert "0.410 <small>±" in text
    assert text.count("<figure") >= 2


def test_several_files_a_title_and_markdown(results: Path, tmp_path: Path) -> None:
    other = kept(tmp_path / "other", Figures(change_facts(FASTER.result, subject="resnet56.onnx")))
    said = called(results / "results.jsonl", other, "-o", "page.html", "--markdown", "note.md", "--title", "Both")
    assert said == "page.html\nnote.md\n"
    assert " – Both</title>" in Path("page.html").read_text()
    note = Path("note.md").read_text()
    assert note.startswith("# Both\n")
    assert "resnet20.onnx" in note
    assert "resnet56.onnx" in note


def test_markdown_alone_to_standard_output(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "missing", lambda: "matplotlib is not installed")
    assert called(results, "--markdown", "-").startswith("# rbench\n")
    assert not Path("report.html").exists()


def test_of_each_configuration_the_last_run_is_shown(results: Path) -> None:
    samples = processes(0.000333, 0.00036, 0.0004, 0.0003)
    later = change_facts(FASTER.result, run="later", time="2026-02-02T03:04:05+00:00", samples=samples)
    kept(results, Figures(later))
    result = CliRunner().invoke(
        report, [str(results), "--markdown", "-"], catch_exceptions=False, standalone_mode=False
    )
    assert result.stderr.startswith("1 ")
    assert "0.333" in result.stdout
    assert "0.410" not in result.stdout


def test_without_matplotlib_there_is_no_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    with refuses(BackendUnavailableError, "matplotlib-missing", "pip install 'rexport[report]'"):
        called(results)
    assert not Path("report.html").exists()


@pytest.mark.parametrize("option", ["-o", "--markdown"])
def test_what_is_read_is_not_written_over(results: Path, option: str) -> None:
    before = (results / "results.jsonl").read_bytes()
    with refuses(UsageError, "output-is-input", "results.jsonl"):
        called("out", option, "out/results.jsonl")
    assert (results / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--markdown"])
def test_a_file_of_others_is_replaced_only_by_force(results: Path, tmp_path: Path, option: str) -> None:
    path = tmp_path / "notes.html"
    path.write_text("mine")
    with refuses(UsageError, "target-exists", "notes.html", f"{option} FILE"):
        called(results, option, path)
    assert path.read_text() == "mine"
    called(results, option, path, "--force")
    assert path.read_text() != "mine"


def test_an_own_page_and_an_empty_file_are_replaced(results: Path, tmp_path: Path) -> None:
    assert called(results) == called(results, "--title", "Again") == "report.html\n"
    assert "Again" in Path("report.html").read_text()
    (tmp_path / "summary").touch()
    assert called(results, "--markdown", "summary") == "summary\n"


def test_two_outputs_are_two_files(results: Path) -> None:
    with refuses(UsageError, "output-is-input", "same.html"):
        called(results, "-o", "same.html", "--markdown", "./same.html")
    assert not Path("same.html").exists()


def test_files_that_are_not_rows(results: Path, tmp_path: Path) -> None:
    with refuses(ResourceError, "results-file-missing", "nowhere"):
        called("nowhere")
    (tmp_path / "empty.jsonl").touch()
    with refuses(ArtifactError, "rows-missing", "empty.jsonl"):
        called("empty.jsonl")
    (tmp_path / "torn.jsonl").write_text('{"status"')
    with refuses(ArtifactError, "json-invalid", "line 1"):
        called("torn.jsonl")
    data = json.loads((results / "results.jsonl").read_text().splitlines()[0])
    (tmp_path / "newer.jsonl").write_text(json.dumps({**data, "schema_version": 99}))
    with refuses(CompatibilityError, "schema-newer", "99"):
        called("newer.jsonl")
    assert not Path("report.html").exists()


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as experiments leave it, beside which the command is called."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "paper"
    folder.mkdir()
    for one in (degradation((0,)), responses()):
        findings.write(one, folder)
    return folder


def test_the_page_of_a_folder_of_findings(found: Path) -> None:
    assert called(found) == "report.html\n"
    text = Path("report.html").read_text()
    assert text.count("<figure") == 4
    assert text.index("<h2>Degradation: ") < text.index("<h2>Responses: ")
    assert "no rows" not in text


def test_rows_and_findings_together_each_once(found: Path, results: Path) -> None:
    findings.write(responses(), results)
    path = found / "degradation.findings.json"
    said = called(
        results, path, found / "../paper/degradation.findings.json", results / "results.jsonl", "-o", "a.html"
    )
    assert said == "a.html\n"
    text = Path("a.html").read_text()
    assert text.count("<h2>Responses: ") == text.count("<h2>Degradation: ") == 1
    assert text.index("0.410 ") < text.index("<h2>Responses: ")


def test_findings_as_markdown(found: Path) -> None:
    text = called(found, "--markdown", "-")
    assert text.startswith("# rbench\n\n**2 of 3 claims reproduced")
    assert f"## {degradation().title}\n\n**Degradation: 2 of 2 claims reproduced**" in text
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| resnet20")]
    assert ["resnet20", "8.80 ± 0.21", "3.40 ± 0.09", "8.75"] in cells
    assert f"\n```\n{degradation().provenance.command}\n```\n" in text
    assert [line for line in text.splitlines() if line.startswith("- **reproduced**")]
    assert text.count("<details>") == text.count("</details>") == 2


def test_findings_are_not_written_over(found: Path) -> None:
    path = found / "degradation.findings.json"
    before = path.read_bytes()
    for inputs in (found, path):
        with refuses(UsageError, "output-is-input", path.name):
            called(inputs, "-o", path)
    assert path.read_bytes() == before


def test_what_is_neither_rows_nor_findings_says_what_is_expected(found: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refuses(ArtifactError, "results-missing", "results.jsonl", "*.findings.json", "rbench run -o DIR"):
        called("empty")
    path = findings.write(responses(), tmp_path).rename(tmp_path / "findings.json")
    with refuses(ArtifactError, "json-invalid", "line 1", ".findings.json"):
        called(path)
    (found / "torn.findings.json").write_text("{")
    with refuses(ArtifactError, "json-invalid", "torn.findings.json", "rbench paper"):
        called(found)
    with refuses(ResourceError, "file-access-failed", "nowhere.findings.json"):
        called("nowhere.findings.json")
    assert not Path("report.html").exists()


def test_an_empty_file_of_rows_beside_findings_is_no_failure(found: Path) -> None:
    (found / "results.jsonl").touch()
    assert called(found) == "report.html\n"
