"""The sentences of errors, reasons and remarks, with their codes: ``python -m scripts.sentences [--write|--check]``.

The table ``tests/sentences.toml`` holds each sentence once, under its code and the lowest package that uses the code.
``{}`` stands for a value. The table is read off the source, so that a change of wording shows as one changed line.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.house.sources import Source, read_house

TABLE = Path("tests/sentences.toml")
ROOT_ERROR = "RexportError"
FORM = re.compile(r"[a-z0-9]+(-[a-z0-9]+){0,4}")
FLOORS = ("runtimes", "exporter", "benchmarks", "rexport")
"""The packages from the ground up. A code stands under the lowest one that uses it."""

TEXTS = ("what", "sentence", "text")
"""What errors and records call their sentence."""

Table = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Site:
    """A place in the source where a code is given its sentence, or the alternatives of it."""

    place: str
    package: str
    code: str
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Carrier:
    """A class whose instances carry a code and a sentence: at which positions, and whether there must be a code."""

    code_at: int | None
    sentence_at: int
    needs_code: bool


ERROR = Carrier(code_at=None, sentence_at=0, needs_code=True)
UNKNOWN = Carrier(code_at=None, sentence_at=0, needs_code=False)
"""Any other call that passes a literal as ``code=``: a function that makes such an error or record."""


@dataclass(frozen=True)
class Scan:
    """What the source says: the sites in their order, and what breaks a rule, as ``path:line: fault``."""

    sites: tuple[Site, ...]
    faults: tuple[str, ...]

    def table(self) -> Table:
        """Package, code, and the templates of the code."""
        table: Table = {package: {} for package in FLOORS}
        for site in sorted(self.sites, key=lambda site: (site.code, FLOORS.index(site.package))):
            if not any(site.code in codes for codes in table.values()):
                table[site.package][site.code] = sorted(site.templates)
        return {package: codes for package, codes in table.items() if codes}


def scan(sources: Sequence[Source]) -> Scan:
    """The sentences of some source files, and the faults among them."""
    carriers = _records(sources) | dict.fromkeys(find_error_classes(sources), ERROR)
    sites: list[Site] = []
    faults: list[str] = []
    for source in sources:
        for call, called in _calls(source.tree):
            carrier = _carrier(called, carriers)
            place = f"{source.place(call)}: {called}"
            code, sentence = _arguments(call, carrier)
            if isinstance(code, ast.Constant) and isinstance(code.value, str) and code.value:
                templates = _templates(sentence)
                if templates:
                    sites.append(Site(source.place(call), source.path.parts[0], code.value, templates))
                elif carrier != UNKNOWN:
                    faults.append(f"{place} gives the code {code.value!r} a sentence that is no literal")
            elif carrier.needs_code and not (isinstance(code, ast.Attribute) and code.attr == "code"):
                given = "has no code" if code is None else f"has a code that is no literal: {ast.unparse(code)}"
                faults.append(f"{place} {given}")
    return Scan(tuple(sites), (*faults, *_contradictions(sites)))


def _contradictions(sites: Sequence[Site]) -> Iterator[str]:
    """Codes of a wrong form, and codes that stand for another sentence than where they stood first."""
    first: dict[str, Site] = {}
    for site in sites:
        if FORM.fullmatch(site.code) is None:
            yield f"{site.place}: the code {site.code!r} is not of one to five lower-case words joined by hyphens"
        known = first.setdefault(site.code, site)
        if set(known.templates) != set(site.templates):
            yield f"{site.place}: the code {site.code!r} has another sentence at {known.place}"


def find_error_classes(sources: Sequence[Source]) -> frozenset[str]:
    """The names of the root of the errors and of every class that is derived from it."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }
    errors = {ROOT_ERROR}
    while more := {name for name, above in bases.items() if above & errors} - errors:
        errors |= more
    return frozenset(errors)


def _calls(tree: ast.Module) -> list[tuple[ast.Call, str]]:
    """All calls in the order of their lines, and what is called; for ``cls`` its class."""
    classes = {
        call: node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "cls"
    }
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    ordered = sorted(calls, key=lambda call: (call.lineno, call.col_offset))
    return [(call, classes.get(call, ast.unparse(call.func))) for call in ordered]


def _records(sources: Sequence[Source]) -> dict[str, Carrier]:
    """The classes that have a field ``code`` and one for the sentence, by their names."""
    records = {}
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                names = [ast.unparse(field.target) for field in fields]
                texts = [names.index(text) for text in TEXTS if text in names]
                if "code" in names and texts:
                    code_at = names.index("code")
                    records[node.name] = Carrier(code_at, texts[0], needs_code=fields[code_at].value is None)
    return records


def _carrier(called: str, carriers: dict[str, Carrier]) -> Carrier:
    """What a call makes. ``type(error)(...)`` makes an error; click has a ``UsageError`` of its own."""
    if re.fullmatch(r"type\([^()]*\)", called):
        return ERROR
    return UNKNOWN if called.startswith("click.") else carriers.get(called.split(".")[-1], UNKNOWN)


def _arguments(call: ast.Call, carrier: Carrier) -> tuple[ast.expr | None, ast.expr | None]:
    """The code and the sentence that a call passes."""
    passed = {keyword.arg: keyword.value for keyword in call.keywords}
    places = dict(enumerate(call.args))
    code = passed.get("code", None if carrier.code_at is None else places.get(carrier.code_at))
    texts = (passed[text] for text in TEXTS if text in passed)
    return code, next(texts, places.get(carrier.sentence_at))


def _templates(sentence: ast.expr | None) -> tuple[str, ...]:
    """The templates of a sentence: several where a condition chooses between literals, none where it is no literal."""
    if isinstance(sentence, ast.Constant) and isinstance(sentence.value, str):
        return (_escape(sentence.value),)
    if isinstance(sentence, ast.JoinedStr):
        parts = (_escape(str(part.value)) if isinstance(part, ast.Constant) else "{}" for part in sentence.values)
        return ("".join(parts),)
    if isinstance(sentence, ast.IfExp):
        both = _templates(sentence.body), _templates(sentence.orelse)
        return both[0] + both[1] if all(both) else ()
    if isinstance(sentence, ast.BinOp) and isinstance(sentence.op, ast.Add):
        return tuple(left + right for left in _templates(sentence.left) for right in _templates(sentence.right))
    return ()


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def as_toml(table: Table) -> str:
    """The table as it is kept: a string for one sentence, a list of them for alternatives."""
    lines = ["# Written by `python -m scripts.sentences --write`.\n"]
    for package, codes in table.items():
        lines.append(f"\n[{package}]\n")
        for code, templates in codes.items():
            texts = [json.dumps(template, ensure_ascii=False) for template in templates]
            lines.append(f"{code} = {texts[0] if len(texts) == 1 else '[' + ', '.join(texts) + ']'}\n")
    return "".join(lines)


def read_table(path: Path) -> Table:
    """The table that is kept."""
    kept = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        package: {code: [text] if isinstance(text, str) else text for code, text in codes.items()}
        for package, codes in kept.items()
    }


def differences(kept: Table, found: Table) -> list[str]:
    """A line for each code whose sentence is not the one that is kept."""
    before, after = (
        {(package, code): codes[code] for package, codes in t.items() for code in codes} for t in (kept, found)
    )
    return [
        f"{package}: {code}: {before.get((package, code), 'nothing')} became {after.get((package, code), 'nothing')}"
        for package, code in sorted(before | after)
        if before.get((package, code)) != after.get((package, code))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. The exit code is 1 if there is a fault, or if ``--check`` finds that the kept table differs."""
    parser = argparse.ArgumentParser(prog="python -m scripts.sentences", description=(__doc__ or "").splitlines()[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--write", action="store_true", help=f"write {TABLE}")
    form.add_argument("--check", action="store_true", help=f"compare with {TABLE}, and print what differs")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="of the repository")
    options = parser.parse_args(arguments)
    found = scan(read_house(options.root).packages)
    faults = list(found.faults)
    if options.write:
        (options.root / TABLE).write_text(as_toml(found.table()), encoding="utf-8")
    elif options.check:
        faults += differences(read_table(options.root / TABLE), found.table())
    else:
        sys.stdout.write(as_toml(found.table()))
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
