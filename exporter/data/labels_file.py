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

_NUMBERED = {
    "begins": re.compile(r"(?P<number>\d{1,9})\s*[,;:\t ]\s*(?P<name>\S.*)"),
    "ends": re.compile(r"(?P<name>.*[^,;:\s])[,;:\s]+(?P<number>\d{1,9})"),
}
"""A line that begins or ends with a number, and holds more."""

_WITHOUT_NUMBERS = {
    "begins": "s/^[[:space:]]*[0-9]+[,;:[:space:]]+//",
    "ends": "s/[,;:[:space:]]+[0-9]+[[:space:]]*$//",
}
"""The command of sed that removes the numbers."""

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
    side = _numbered_side(labels)
    if side is not None:
        names = path.with_name(f"{path.stem}-names.txt")  # never the file that is read
        raise ArtifactError(
            f"each line {side} with its number, as {quote(labels[0])!r}; expected the label alone",
            code="labels-numbered",
            path=path,
            hint=f"sed -E '{_WITHOUT_NUMBERS[side]}' {shell_word(path)} > {shell_word(names)} leaves the numbers out",
        )


def _numbered_side(labels: Sequence[str]) -> str | None:
    """Return the side of the lines where their numbers from 0 or 1 stand, or ``None`` if there are none.

    One name with different numbers, as in ``class 0`` and ``class 1``, is a label with its number.
    """
    for side, pattern in _NUMBERED.items():
        matches = [match for match in map(pattern.fullmatch, labels) if match is not None]
        numbers = [int(match["number"]) for match in matches]
        counted = any(numbers == list(range(first, first + len(labels))) for first in (0, 1))
        if counted and len({match["name"] for match in matches}) > 1:
            return side
    return None


def _is_json(text: str) -> bool:
    try:
        codec.parse(text)
    except ArtifactError:
        return False
    return True
