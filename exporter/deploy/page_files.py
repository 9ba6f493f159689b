"""The files of a page: its markup with a policy of content, and all of it in one file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
import string
from collections.abc import Mapping
from importlib import resources

SHARED, OWN = ("runtimes", "serving", "page"), ("exporter", "deploy", "site")
"""The package and folders of the files that pages of servers use too, and of those that only these pages use."""

MODULES = (
    "sampling.js", "resample.js", "preprocess.js", "decode.js", "labeller.js", "heat.js", "view.js", "page.js"
)  # fmt: skip
"""The modules of the page. Each stands after those that it imports."""

STYLE, MARKUP = "page.css", "page.html"
"""The style and the template of the markup."""

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./[a-z_]+\.js\";\n", re.MULTILINE)
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
    for package, *folders in (OWN, SHARED):
        file = resources.files(package).joinpath(*folders, name)
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(name)


def folder_page(words: Mapping[str, str]) -> str:
    """Return the markup of a page whose other files lie beside it.

    Args:
        words: The texts ``title``, ``about`` and ``privacy``.
    """
    policy = _policy("'self' blob:", "'self'", "'self'")
    script = f'<script type="module" src="{MODULES[-1]}"></script>'
    return _fill({**words, "notice": UNSTARTED}, policy, f'<link rel="stylesheet" href="{STYLE}">', script)


def single_page(words: Mapping[str, str], model: str, contents: Mapping[str, bytes]) -> str:
    """Return a page that holds all of its files and opens from a disk.

    Args:
        words: As for ``folder_page``.
        model: The description of the model as JSON.
        contents: The contents of the files that the description names, by their paths.
    """
    style, script = read_file(STYLE), combine_modules()
    policy = _policy(f"'sha256-{_digest(script)}' blob:", f"'sha256-{_digest(style)}'", "'none'")
    escaped = model.replace("<", "\\u003c")
    scripts = [f'<script type="application/json" id="model.json">{escaped}</script>']
    for path, content in contents.items():
        packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
        scripts.append(f'<script type="text/plain" id="{html.escape(path)}">{packed}</script>')
    scripts.append(f'<script type="module">{script}</script>')
    return _fill({**words, "notice": ""}, policy, f"<style>{style}</style>", "\n".join(scripts))


def combine_modules() -> str:
    """Return all modules as one, in which their functions see each other without imports."""
    parts = []
    for name in MODULES:
        text = _EXPORT.sub("", _REEXPORT.sub("", _IMPORT.sub("", read_file(name))))
        parts.append(text)
    return "\n" + "\n".join(parts)


def _policy(scripts: str, styles: str, connections: str) -> str:
    """Return the Content-Security-Policy: no file and no connection from elsewhere than these sources."""
    return (
        f"default-src 'none'; script-src {scripts} 'wasm-unsafe-eval'; style-src {styles}; img-src data: blob:; "
        f"connect-src {connections}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _fill(words: Mapping[str, str], policy: str, style: str, scripts: str) -> str:
    escaped = {name: text if name == "notice" else html.escape(text) for name, text in words.items()}
    return string.Template(read_file(MARKUP)).substitute(escaped, policy=policy, style=style, scripts=scripts)
