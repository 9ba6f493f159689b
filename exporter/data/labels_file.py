"""A text file with the names of the classes, one on each line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from runtimes import codec, files
from runtimes.class_outputs import BINARY
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, quote
from runtimes.escaping import shell_word

LABELS_LIMIT_BYTES = 16 << 20
"""The largest size of a file with labels."""

_NUMBERED = re.compile(r"(\d+)\s*[,;:\t ]\s*\S.*")
"""A line that begins with a number, and holds more."""

_LIST = re.compile(r"""\[\s*(["'].*|[^]]*)""")
"""The first line of a list: a quotation mark follows the bracket, or the bracket is not closed."""


def read_labels(path: Path, classes: int | None, notify: Callable[[str | Reason], None]) -> tuple[str, ...]:
    """Read a file with one label on each line.

    The encoding is UTF-8 with or without a byte-order mark. Blank lines at the end are ignored.

    Args:
        path: The file.
        classes: The number of classes, or ``None`` if it is unknown.
        notify: Receives a notice about repeated labels.

    Raises:
        ResourceError: The file cannot be read.
        ArtifactError: The file is not UTF-8, or contains a blank line.
        ModelMismatchError: The number of labels is not ``classes``.
    """
    content = files.read_bounded(path, LABELS_LIMIT_BYTES)
    try:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"the labels are not UTF-8 text: {error.reason} at byte {error.start}", code="labels-not-utf8", path=path
        ) from error
    labels = tuple(line.strip() for line in text.rstrip().split("\n")) if text.strip() else ()
    _check_form(text, labels, path)
    if "" in labels:
        raise ArtifactError(
            f"line {labels.index('') + 1} is blank; expected one label on each line", code="label-blank", path=path
        )
    if classes is not None and len(labels) != classes and (classes, len(labels)) != BINARY:
        raise ModelMismatchError(
            f"there are {len(labels)} labels, but the network has {classes} classes",
            code="label-count-mismatch",
            path=path,
            hint=f"the first line, {quote(labels[0])!r}, may be a header: remove it"
            if len(labels) == classes + 1
            else None,
        )
    repeated = len(labels) - len(set(labels))
    if repeated:
        notify(Reason("labels-repeated", f"{path.name}: {repeated} of {len(labels)} labels repeat an earlier label"))
    return labels


def _check_form(text: str, labels: Sequence[str], path: Path) -> None:
    """Check that a file holds plain names, and neither JSON nor a table.

    A name may begin with a bracket, as ``[background]``.

    Raises:
        ArtifactError: The file has another form.
    """
    first = text.strip().partition("\n")[0].rstrip()
    if first.startswith("{") or _LIST.fullmatch(first) or (first.startswith("[") and _is_json(text)):
        raise ArtifactError(
            "the labels are JSON or a table of another program; expected one label on each line",
            code="labels-not-lines",
            path=path,
            hint="write the names to a text file, in the order of the outputs",
        )
    matches = [_NUMBERED.fullmatch(label) for label in labels]
    numbers = [int(match[1]) for match in matches if match is not None]
    if (
        len(labels) > 1
        and len(numbers) == len(labels)
        and numbers
        in (
            list(range(len(labels))),
            list(range(1, len(labels) + 1)),
        )
    ):
        names = path.with_name(f"{path.stem}-names.txt")  # never the file that is read
        raise ArtifactError(
            f"each line begins with its number, as {quote(labels[0])!r}; expected the label alone",
            code="labels-numbered",
            path=path,
            hint=f"sed -E 's/^[[:space:]]*[0-9]+[,;:[:space:]]+//' {shell_word(path)} > {shell_word(names)} "
            "leaves the numbers out",
        )


def _is_json(text: str) -> bool:
    try:
        codec.parse(text)
    except ArtifactError:
        return False
    return True
