"""The files of a page: its markup with a policy of content, and all of it in one file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from runtimes.serving.page_markup import FOLDER, STYLE, content_policy, data_element, page_markup

OWN = Path(__file__).with_name("site")
"""The folder of the modules that pages of servers do not have."""

MODULES = tuple(
    f"{name}.js"
    for name in (
        "base64",
        "sampling",
        "resample",
        "preprocess",
        "decode",
        "probabilities",
        "labeller",
        "heat",
        "view",
        "page",
    )
)
"""The modules of the page. Each stands after those that it imports."""

_RUNTIME = "blob: 'wasm-unsafe-eval'"
"""The sources of ONNX Runtime Web: its code, which the page checks before it runs it, and WebAssembly."""

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./[a-z0-9_]+\.js\";\n", re.MULTILINE)
_REEXPORT = re.compile(r"^export \{[^}]*\};\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async function|function|class|const) )", re.MULTILINE)

UNSTARTED = (
    '<p class="alarm unstarted">The page has not started. Opened from a disk, a browser does not let it read its '
    "files. Serve its folder: <code>python3 -m http.server --bind 127.0.0.1 --directory FOLDER</code>. Or write one "
    "file that opens from a disk: <code>rexport web ARTIFACT -o page.html</code></p>"
)
"""The notice that a page in a folder shows when its modules do not run."""


def read_file(name: str) -> str:
    """Return the text of one of the page's files."""
    own = OWN / name
    return (own if own.is_file() else FOLDER / name).read_text(encoding="utf-8")


def folder_page(words: Mapping[str, str]) -> str:
    """Return the markup of a page whose other files lie beside it.

    Args:
        words: As for ``page_markup``.
    """
    return page_markup(
        words,
        policy=content_policy(f"'self' {_RUNTIME}", "'self'", "'self'"),
        style=f'<link rel="stylesheet" href="{STYLE}">',
        notice=UNSTARTED,
        scripts=f'<script type="module" src="{MODULES[-1]}"></script>',
    )


def single_page(words: Mapping[str, str], model: str, contents: Mapping[str, bytes]) -> str:
    """Return a page that holds all of its files and opens from a disk.

    Args:
        words: As for ``page_markup``.
        model: The description of the model as JSON.
        contents: The contents of the files that the description names, by their paths.
    """
    style, script = read_file(STYLE), combine_modules()
    elements = [data_element("model.json", model)]
    for path, content in contents.items():
        packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
        elements.append(f'<script type="text/plain" id="{path}">{packed}</script>')
    elements.append(f'<script type="module">{script}</script>')
    return page_markup(
        words,
        policy=content_policy(f"'sha256-{_digest(script)}' {_RUNTIME}", f"'sha256-{_digest(style)}'", "'none'"),
        style=f"<style>{style}</style>",
        notice="",
        scripts="\n".join(elements),
    )


def combine_modules() -> str:
    """Return all modules as one, in which their functions see each other without imports."""
    parts = []
    for name in MODULES:
        text = _EXPORT.sub("", _REEXPORT.sub("", _IMPORT.sub("", read_file(name))))
        parts.append(text)
    return "\n" + "\n".join(parts)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
