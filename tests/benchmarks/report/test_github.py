"""The Markdown of a report in the renderer that GitHub uses: no text of a stranger becomes an element."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence

import pytest

from benchmarks.report.document import report_document
from benchmarks.report.markdown import escape, markdown
from tests.benchmarks.report_html.hostile import hostile_findings, hostile_results
from tests.hostile import ATTACKS
from tests.peers import peer

pytestmark = pytest.mark.peers

PROGRAM = """
import json, sys
import cmarkgfm
from cmarkgfm.cmark import Options
names = ["table", "autolink", "strikethrough", "tasklist"]
render = lambda text: cmarkgfm.markdown_to_html_with_extensions(text, Options.CMARK_OPT_UNSAFE, names)
print(json.dumps([render(text) for text in json.load(sys.stdin)]))
"""

TEXTS = (
    *ATTACKS, "see https://example.org", "www.example.org", "ftp://a.b", "me@example.org", "*a* _b_ __c__ ~~d~~",
    "&lt;b&gt;", "- [ ] task", "1. x", "1) x", "+ x", "# x", "===", "---", "> x", "    code", "\\<b>", "`a`", "x\\",
)  # fmt: skip

PLACES = ("{}", "- {}", "| a |\n| - |\n| {} |", "**{}**", "## {}")

OWN = {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "h1", "h2", "h4"}


def rendered(texts: Sequence[str]) -> list[set[str]]:
    """The names of the elements in each text."""
    python = peer("markdown") / "bin" / "python"
    done = subprocess.run(
        [python, "-c", PROGRAM], input=json.dumps(texts), capture_output=True, text=True, check=True
    )  # fmt: skip
    return [set(re.findall(r"<(\w+)", page)) for page in json.loads(done.stdout)]


def test_no_text_is_an_element_anywhere() -> None:
    texts = [place.format(escape(text)) for text in TEXTS for place in PLACES]
    found = {text: tags - OWN for text, tags in zip(texts, rendered(texts), strict=True) if tags - OWN}
    assert found == {}


def test_a_hostile_report_has_only_its_own_elements() -> None:
    (tags,) = rendered([markdown(report_document(hostile_results(), hostile_findings()))])
    assert tags - OWN <= {"details", "summary", "pre", "code"}


@pytest.mark.parametrize("text", ["https://example.org", "~~x~~", "<b>x</b>", "[x](y)", "*x*"])
def test_an_element_is_caught(text: str) -> None:
    (tags,) = rendered([text])
    assert tags - OWN
