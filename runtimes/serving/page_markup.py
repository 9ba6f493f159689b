"""The markup of a page that labels images, of a server or of a folder. Nothing but the standard library is imported."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

from runtimes.escaping import html_text

FOLDER = Path(__file__).with_name("page")
"""The folder of the template, the style, and the modules that both kinds of pages have."""

STYLE, TEMPLATE = "page.css", "page.html"
"""The style, and the template of the markup."""


def content_policy(scripts: str, styles: str, connections: str) -> str:
    """Return a Content-Security-Policy: the page loads nothing, and connects to nothing, but what is named here.

    Args:
        scripts: The sources of scripts.
        styles: The sources of styles.
        connections: The addresses that scripts may connect to.
    """
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data: blob:; "
        f"connect-src {connections}; base-uri 'none'; form-action 'none'"
    )


def page_markup(words: Mapping[str, str], **markup: str) -> str:
    """Return the markup of a page.

    Args:
        words: The texts ``title``, ``about`` and ``privacy``, which are escaped.
        markup: The Content-Security-Policy as ``policy``, and the elements ``style``, ``notice`` and ``scripts``.
    """
    escaped = {name: html_text(text) for name, text in words.items()}
    return string.Template((FOLDER / TEMPLATE).read_text(encoding="utf-8")).substitute(escaped, **markup)


def data_element(id: str, json: str) -> str:
    """Return an element that holds JSON for the scripts of a page.

    Args:
        id: The id of the element.
        json: The JSON text.
    """
    return f'<script type="application/json" id="{html_text(id)}">{json.replace("<", chr(92) + "u003c")}</script>'
