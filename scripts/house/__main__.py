"""The command line of the measurement of the house."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.house import __doc__ as description
from scripts.house.figures import Figure, figures
from scripts.house.sources import MissingFolderError, read_house

DONE, BOUND_EXCEEDED = 0, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code is 0, or 1 if ``--check`` is given and a bound is exceeded; wrong usage ends with 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        found = figures(read_house(options.root))
    except (MissingFolderError, SyntaxError) as error:
        parser.error(str(error))
    by_name = {figure.name: figure for figure in found}
    if options.list is not None and options.list not in by_name:
        parser.error(f"no figure is named {options.list!r}; the names are {', '.join(by_name)}")
    if options.list is not None:
        text = "".join(f"{item}\n" for item in by_name[options.list].items)
    else:
        text = _json(found) if options.json else _table(found)
    sys.stdout.write(text)
    return BOUND_EXCEEDED if options.check and any(figure.is_exceeded for figure in found) else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.house", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(__file__).resolve().parents[2]
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the figures as JSON")
    form.add_argument("--list", metavar="NAME", help="print the items behind one figure, one on a line")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    parser.add_argument("--root", type=Path, default=root, help="the root of the code base; default: this one")
    return parser


def _table(found: Sequence[Figure]) -> str:
    """The table has a row for each figure; an exclamation mark stands at a bound that is exceeded."""
    rows = [("figure", "value", "bound", "", "meaning")]
    rows += [
        (figure.name, _number(figure.value), _number(figure.bound), "!" if figure.is_exceeded else "", figure.meaning)
        for figure in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}} {row[3]:1}  {row[4]}" for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def _json(found: Sequence[Figure]) -> str:
    entries = {
        figure.name: {
            "value": figure.value,
            "bound": figure.bound,
            "exceeded": figure.is_exceeded,
            "meaning": figure.meaning,
        }
        for figure in found
    }
    return json.dumps(entries, indent=2) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
