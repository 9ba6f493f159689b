"""Text and attributes of a page: what comes from files or libraries is escaped and cannot change the page around it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runtimes.escaping import html_text as text

LONG = 48
"""Characters from which on a cell or a name may wrap."""

_INTERVAL = re.compile(r"(.*?\S) (\[[^\[\]]*\]|± .*|too noisy|n\.s\.)")


def cell_text(words: str) -> str:
    """A cell's words: the interval behind a number is an element of its own, and long words have a box that scrolls."""
    if (number := _INTERVAL.fullmatch(words)) is not None and len(words) <= LONG:
        return f"{text(number[1])} <small>{text(number[2])}</small>"
    return f'<div class="long">{text(words)}</div>' if len(words) > LONG else text(words)


def data_attributes(attributes: Mapping[str, str]) -> str:
    """The attributes by which the script filters and the style sheet marks an element, with a space before each."""
    return "".join(f' data-{name}="{text(words)}"' for name, words in attributes.items())
