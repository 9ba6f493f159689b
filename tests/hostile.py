"""A folder of a stranger in which every text attacks where it is shown: artifact, checkpoint, images and results."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

MARK = "INJECTED"
"""What begins a line only where a line end of a file's text was written as such."""

LONG = 100_000
LONGEST_LINE = 5_000

NAME = f"a\x1b[2J\x9b2J\n{MARK}\u202egnp<img src=x onerror=alert(1)>=1;$(touch attacked)`touch attacked`"
"""A file name, without its suffix."""

ATTACKS = (
    f"\x1b[2J\x1b]0;{MARK}\x07\x1b]8;;https://example.org\x07link",
    f"\n{MARK}\r{MARK}\u2028{MARK}\x85{MARK}",
    "\u202egnp.exe\u2066\u200b\u00ad\ufeff\u3164",
    f'"><script>window.attacked=1</script><img src=x onerror="window.attacked=1"></details></summary><b>{MARK}',
    "=cmd|' /C calc'!A0;=1+1;$(touch attacked);`touch attacked`&&touch attacked",
    "[link](javascript:alert(1)) ![x](https://example.org/x.png) **bold** ~~x~~ @team #1 www.example.org | cell |",
    f"```\n### {MARK}\n- x\n\n<h3>{MARK}</h3>\n---",
    "W" * LONG,
    "+1 -2 @SUM(A1)",
    "中文 標籤 é 👩‍🔬",
)
"""One of each kind; the last one has to stay as it is."""

READABLE = ATTACKS[-1]

KEPT = (
    "format",
    "sha256",
    "dtype",
    "origin",
    "interpolation",
    "channel_order",
    "filter",
    "antialias",
    "assumed",
    "precision",
)
"""Fields of a manifest with one of a few words, or that are checked: with other words in them it is refused."""


def poisoned(value: Any, name: str = "", number: int = 0) -> Any:
    """JSON with an attack in place of each text, in the order of ``ATTACKS``."""
    if isinstance(value, str):
        return value if name in KEPT else ATTACKS[number % len(ATTACKS)]
    if isinstance(value, Mapping):
        rows = enumerate(value.items())
        return {key: poisoned(item, key, number + place) for place, (key, item) in rows}
    if isinstance(value, list):
        return [poisoned(item, name, number + place) for place, item in enumerate(value)]
    return value


@dataclass(frozen=True)
class Folder:
    """The folder, and what is in it."""

    path: Path
    artifact: Path
    checkpoint: Path
    strange: Path
    image: Path
    results: Path
    findings: Path


def fill(folder: Path, model: Path) -> Folder:
    """Write the files. ``model`` is an ONNX artifact, which is copied."""
    import torch
    from PIL import Image

    from exporter.models import resnet
    from exporter.models.variants import VARIANTS

    artifact = folder / f"{NAME}.onnx"
    shutil.copy(model, artifact)
    manifest = json.loads(Path(f"{model}.json").read_text())
    shutil.copy(model.parent / manifest["vectors"]["name"], folder)
    hostile = poisoned(manifest) | {"labels": list(ATTACKS)}
    for kept in ("inputs", "outputs", "vectors", "variant", "external"):
        hostile[kept] = manifest[kept]
    hostile["parity"]["output"] = "logits"
    Path(f"{artifact}.json").write_text(json.dumps(hostile))
    checkpoint = folder / f"{NAME}.pth"
    state = dict(resnet.build(VARIANTS["resnet20"]).state_dict())
    torch.save({ATTACKS[0]: state, NAME: state, ATTACKS[5]: state}, checkpoint)
    strange = folder / f"strange{NAME}.pth"
    torch.save({"state_dict": state | {ATTACKS[1]: torch.zeros(2), NAME: torch.zeros(2)}}, strange)
    image = folder / f"{NAME}.png"
    Image.new("RGB", (32, 32)).save(image)
    (folder / f"broken{NAME}.png").write_bytes(b"none")
    return Folder(folder, artifact, checkpoint, strange, image, *_measurements(folder))


def _measurements(folder: Path) -> tuple[Path, Path]:
    from benchmarks.analysis.figures import Figures
    from benchmarks.records import findings
    from benchmarks.records.store import format_line
    from tests.benchmarks.report_html.hostile import hostile_findings, hostile_results

    results = folder / f"{NAME}.jsonl"
    rows: Sequence[Figures] = hostile_results()
    results.write_bytes(b"".join(format_line(row.result, {}) for row in rows))
    place = folder / "findings"
    place.mkdir()
    written = findings.write(hostile_findings()[0], place)
    return results, written


def faults_of_lines(text: str, longest: int = LONGEST_LINE) -> list[str]:
    """What in a text of lines acts on a terminal, hides, is too long, or began a line of its own."""
    hidden = {
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and c not in "\n\u200d"
    }
    lines = text.split("\n")
    return (
        [f"holds {character!a}" for character in sorted(hidden)]
        + [f"begins a line: {line[:60]!a}" for line in lines if line.lstrip(" #-").startswith(MARK)]
        + [f"a line of {len(line):,} characters" for line in lines if len(line) > longest]
    )


class Elements(HTMLParser):
    """The elements of a page that an attack would have made, and attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element if it is one of those that the attacks hold."""
        if tag in ("img", "script", "b", "h3", "a", "em", "s", "hr") or any(name.startswith("on") for name, _ in attrs):
            self.found.append(f"<{tag} {attrs!a}>"[:200])


def elements_of(page: str) -> list[str]:
    """The elements that stand in a page, of the kinds that the attacks hold."""
    parser = Elements()
    parser.feed(page)
    return parser.found
