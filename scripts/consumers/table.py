"""The answers of all runtimes as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from runtimes import files
from scripts.consumers.consumer import Answer, Consumer
from scripts.consumers.models import FORMS, IMAGES, VARIANT

HEAD = """# Runtimes of others

Which runtimes open the files of `rexport onnx` as they are. Each file is the bundled {variant}, and each input holds
{images} images of Fashion-MNIST. A cell is the largest difference of a logit from those of ONNX Runtime {version} in
Python. The logits are between {low:.1f} and {high:.1f}.

- **fp32** and **int8** files take normalised floats. **raw** files take pixels as uint8 (`--input raw`).
- A runtime with a number gives all {images} images the same class as ONNX Runtime, unless the cell says otherwise.
- int8 results differ because a value halfway between two integers is rounded up or down.

{table}
{reasons}
[How to call these runtimes](../../consumers.md). `python -m scripts.consumers` writes this page and `results.json`.
"""


def write(folder: Path, consumers: Sequence[Consumer], answers: Sequence[Answer], facts: Mapping[str, object]) -> Path:
    """Write ``README.md`` and ``results.json`` into a folder, and return the path of the page.

    Args:
        folder: The folder, which is created.
        consumers: The runtimes in the order of the rows.
        answers: The answers to each form, in any order.
        facts: ``version`` of ONNX Runtime, and ``low`` and ``high``, the range of the logits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = HEAD.format(
        variant=VARIANT,
        images=IMAGES,
        table="\n".join(_rows(consumers, answers)),
        reasons=_reasons(answers),
        **facts,
    )
    records = {**facts, "variant": VARIANT, "images": IMAGES, "answers": [asdict(answer) for answer in answers]}
    for path, text in ((folder / "results.json", json.dumps(records, indent=2) + "\n"), (folder / "README.md", page)):
        with files.write_atomically(path) as file:
            file.write_text(text, encoding="utf-8")
    return folder / "README.md"


def _rows(consumers: Sequence[Consumer], answers: Sequence[Answer]) -> list[str]:
    cells = {(answer.consumer, answer.form): answer for answer in answers}
    rows = [
        f"| runtime | version | {' | '.join(form.name for form in FORMS)} |",
        f"| --- | --- |{' --- |' * len(FORMS)}",
    ]
    for consumer in consumers:
        found = [cells[consumer.name, form.name] for form in FORMS]
        version = next((answer.version for answer in found if answer.version), "-").split("-")[0]
        note = f"<br>{consumer.note}" if consumer.note else ""
        rows.append(f"| {consumer.name}{note} | {version} | {' | '.join(map(cell, found))} |")
    return rows


def cell(answer: Answer) -> str:
    """Return the text of one cell."""
    if answer.difference is None:
        return "no"
    text = "0" if answer.difference == 0 else f"{answer.difference:.1e}"
    return text if answer.agreement == answer.images else f"{text}, {answer.agreement} of {answer.images} classes"


def _reasons(answers: Sequence[Answer]) -> str:
    failed = [answer for answer in answers if answer.reason is not None]
    if not failed:
        return ""
    lines = [f"- {answer.consumer}, {answer.form}: `{str(answer.reason).replace('`', '')}`" for answer in failed]
    return "\n".join(["", "## Why not", "", *lines, ""])
