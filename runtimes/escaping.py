r"""Text from files made safe for each output: a terminal, a page, a spreadsheet, a log, a shell.

Labels, names of models, classes, files and layers, manifests and results may come from strangers. They stay as they are
in memory, in JSON and in Parquet; each output passes all its text through one function of this module, once:

====================  ==================================================================================================
``printable``         a line of a terminal, of a picture, of a comment: what would act or hide is seen as its escape
``json_text``         JSON that is shown on a terminal: the same value, in characters that can be seen
``html_text``         text and attributes of a page
``csv_cell``          a cell of a spreadsheet: no text is a formula
``log_value``         a value in a line of ``name=value``
``shell_word``        a word of a command line that a person may copy
====================  ==================================================================================================

Escaping twice is the same as escaping once for ``printable`` and what is made of it for terminals, so that a message
that quotes a name may pass through the terminal's own escaping.
"""

from __future__ import annotations

import html
import json
import re
import shlex
import unicodedata

MAX_QUOTED = 200
"""The maximum length of external text in a message or in a cell of a terminal, in characters."""

MAX_LINE = 4_000
"""The maximum length of a line for a terminal or in an error, in characters."""

_JOINERS = "\u200c\u200d"
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that Unicode counts as letters, marks or symbols, but that are not seen."""

_HALVES = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]+$")
"""Characters at a cut that have no meaning without the next one or the one before."""

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r]")
_NEXT_FORMULA = re.compile(r";(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?%?")
_PLAIN_VALUE = re.compile(r"[^\s\"'=\\]+")


class QuotedText(str):
    """External text in a message. Its ``repr`` puts it in quotation marks and escapes nothing a second time."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the text in single quotation marks, or in double ones if it has a single one."""
        mark = '"' if "'" in self and '"' not in self else "'"
        return f"{mark}{self}{mark}"


def printable(text: object, most: int | None = None) -> str:
    r"""Return text in one line, in which each character is seen.

    Line ends, control characters, escape sequences, marks that turn the direction of writing, and characters without
    width become escapes such as ``\n``, ``\x1b`` and ``\u202e``. Every kind of space becomes a space. Letters, accents
    and emoji of all scripts stay, with the joiners that they need.

    Args:
        text: The text. Other objects are converted by ``str``.
        most: The largest length of what is returned, in characters. Longer text is cut, and ends in a mark with its
            length: ``… (100,000 characters)``.
    """
    whole = str(text)
    head = whole if most is None else whole[: most + 1]
    if not head.isprintable() or _INVISIBLE.search(head):
        head = _escape_hidden(head)
    if most is None or (len(head) <= most and len(whole) <= most):
        return str(head)
    mark = f"… ({len(whole):,} characters)"
    return _HALVES.sub("", head[: max(0, most - len(mark))]) + mark


def _escape_hidden(text: str) -> str:
    parts, before = [], ""
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Zs":
            character = " "
        shown = _is_seen(character, before, text[place + 1 : place + 2])
        parts.append(character if shown else character.encode("unicode_escape").decode())
        before = character if shown else ""
    return "".join(parts)


def _is_seen(character: str, before: str, after: str) -> bool:
    """Return whether a reader sees the character, or what it does to the one before it.

    Args:
        character: The character.
        before: The character before it, or an empty text where that one is escaped.
        after: The character behind it, or an empty text at the end.
    """
    if character in _JOINERS:
        return _joins(before, after)
    if _SELECTORS.match(character):
        return bool(before) and (unicodedata.category(before) in ("So", "Sm", "Po", "Lo") or before in "0123456789#*")
    return character.isprintable() and not _INVISIBLE.match(character)


def _joins(before: str, after: str) -> bool:
    """Return whether a joiner between these characters changes how they look.

    It does so in emoji, in Arabic script, and after a virama (Unicode Standard Annex 31, section 2.3).
    """
    if not before or not after:
        return False
    if unicodedata.combining(before) == 9:
        return True
    if unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL":
        return True
    emoji = unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
    return emoji and unicodedata.category(after) in ("So", "Sm")


def json_text(text: str) -> str:
    r"""Return JSON text with the same value, whose strings are seen: what acts or hides is written as ``\u001b``.

    Args:
        text: JSON text. Its own line ends and spaces stay.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        character
        if character == "\n" or (character.isprintable() and not _INVISIBLE.match(character))
        else json.dumps(character)[1:-1] if character != "\x7f" else r"\u007f"
        for character in text
    )  # fmt: skip


def html_text(text: object) -> str:
    """Return text for the content or a quoted attribute of an HTML element."""
    return html.escape(printable(text))


def csv_cell(value: object) -> object:
    """Return a value for ``csv.writer``, which no spreadsheet takes for a formula.

    Numbers stay numbers, negative ones too. Text is made ``printable``, so that a row is one line. Text that begins
    like a formula gets an apostrophe before it, and so does what would begin like one where a semicolon parts cells.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value if isinstance(value, (int, float)) else csv_cell(str(value))
    text = _NEXT_FORMULA.sub(";'", printable(value))
    begins_formula = _FORMULA.match(value) is not None or _FORMULA.match(text) is not None
    return f"'{text}" if begins_formula and not _NUMBER.fullmatch(text) else str(text)


def log_value(value: object) -> str:
    """Return a value for a line of ``name=value``.

    A value with spaces, quotation marks, equals signs, or characters that are not seen is written as a string of JSON.
    """
    text = str(value)
    if _PLAIN_VALUE.fullmatch(text) and printable(text) == text:
        return text
    return json_text(json.dumps(text, ensure_ascii=False))


def shell_word(text: object) -> str:
    """Return text as one word of a command line for a shell, to be shown in a message."""
    return shlex.quote(printable(text, MAX_LINE))
