"""README and docs: every shell and Python block runs, every relative link leads somewhere, and the text is readable.

The blocks run in one folder, in the order of the pages, with the files that a reader would have; what a page repeats of
an earlier one has already been done there. A comment ``<!-- not run: reason -->``
above a block exempts it; a comment that begins with ``<!-- setup`` holds commands that prepare the folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scripts.docs import pages, readability

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / page for page in readability.PAGES]
WITH_BLOCKS = [path for path in DOCUMENTS if re.search(r"^```(sh|python)$", path.read_text(encoding="utf-8"), re.M)]

_BLOCK = re.compile(
    r"(?P<setup><!-- setup\n(?P<commands>.*?)-->)"
    r"|(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
_INDENTED_COMMAND = re.compile(r"^    (?:\$ )?(?:rexport|rbench|make|pip|python) ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of a page. ``reason`` says why it is not run, or is ``None``."""

    language: str
    code: str
    reason: str | None


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the blocks of a page in their order, hidden preparation included."""
    for found in _BLOCK.finditer(markdown):
        if found["setup"]:
            yield Block("sh", found["commands"], None)
        else:
            yield Block(found["language"], found["code"], found["reason"])


def run_block(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block in ``folder``, with the programs of this environment first on the path."""
    program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
    }
    return subprocess.run(
        [*program, block.code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a checkpoint of a ResNet-18 with three classes, their names, and labelled photographs."""
    import torch
    from PIL import Image

    from exporter.models.resnet import build
    from exporter.models.variants import customise, variant

    tmp_path = tmp_path_factory.mktemp("reader")
    torch.manual_seed(0)
    torch.save(build(customise(variant("resnet18"), classes=3)).state_dict(), tmp_path / "best.pth")
    names = ("apple", "book", "chair")
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
    generator = np.random.default_rng(0)
    for name in names:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 256, (80, 96, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.fixture(scope="module")
def already_run() -> set[Block]:
    """The blocks that ran in the folder."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_BLOCKS, ids=lambda path: path.stem)
def test_every_block_runs(path: Path, reader_folder: Path, already_run: set[Block]) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.reason is None and block not in already_run:
            done = run_block(block, reader_folder)
            assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
            already_run.add(block)


def test_a_broken_block_is_caught(tmp_path: Path) -> None:
    (block,) = blocks("```sh\nfalse | true\n```\n")
    assert run_block(block, tmp_path).returncode != 0
    (block,) = blocks("```python\nimport runtimes.missing\n```\n")
    assert run_block(block, tmp_path).returncode != 0


def test_an_exemption_holds_for_the_next_block_alone() -> None:
    text = "<!-- not run: needs a GPU -->\n```sh\nfirst\n```\n\n```sh\nsecond\n```\n"
    assert [block.reason for block in blocks(text)] == ["needs a GPU", None]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_stand_in_fenced_blocks(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not _INDENTED_COMMAND.search(prose)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_relative_links_lead_to_files(path: Path) -> None:
    targets = [found["target"] for found in _LINK.finditer(path.read_text(encoding="utf-8"))]
    missing = [
        target for target in targets if not target.startswith("https://") and not (path.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_pages_are_easy_to_read(path: Path) -> None:
    grade, words = readability.measure(path.read_text(encoding="utf-8"))
    assert grade <= readability.GRADE_LIMIT
    assert words <= readability.WORDS_LIMIT


def test_heavy_prose_exceeds_both_limits() -> None:
    heavy = (
        "Notwithstanding the aforementioned considerations regarding institutional interoperability, the "
        "administrative representatives systematically underestimated organisational responsibilities, whose "
        "particularities necessitated comprehensive documentation. "
    )
    grade, words = readability.measure(heavy)
    assert grade > readability.GRADE_LIMIT
    assert words > readability.WORDS_LIMIT


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= readability.README_LINES
    assert len(readme.split()) <= readability.README_WORDS
    assert "![" in readme


def test_the_command_reference_has_every_command() -> None:
    from benchmarks.cli import rbench
    from exporter.cli import cli

    reference = pages.command_reference()
    for program in (cli, rbench):
        for name, command in program.commands.items():
            assert command.hidden or f" {name}`" in reference


def test_the_api_pages_name_everything_public() -> None:
    import rexport
    import runtimes
    import runtimes.errors

    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    assert "::: runtimes.errors\n" in text
    assert all(f".{name}\n" in text or hasattr(runtimes.errors, name) for name in runtimes.__all__)
    assert "::: rexport\n" in text
    assert rexport.__all__
