"""Each figure of ``scripts.house`` counts what it must in a code base of a few lines, and nothing that resembles it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.house.__main__ import main
from scripts.house.figures import BOUNDS, Figure, figures
from scripts.house.sources import read_house

REPOSITORY = Path(__file__).resolve().parents[2]

CLEAN = {
    "exporter/__init__.py": '"""Nothing but a docstring."""\n\nfrom __future__ import annotations\n',
    "runtimes/__init__.py": "",
    "benchmarks/__init__.py": "",
    "benchmarks/records/__init__.py": "",
    "benchmarks/records/result.py": "class Result:\n    median_s: float\n    images: int = 1\n    count = 2\n",
    "tests/test_nothing.py": "def test_nothing():\n    assert True\n",
}

# Each of these lines of benchmarks/cli.py imports benchmarks/wire.py.
IMPORTS = [
    "import benchmarks.wire",
    "from benchmarks import wire as lane",
    "from benchmarks.wire import Message",
    "from . import wire",
    "from .wire import Message",
    "def send():\n    from benchmarks import wire",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from benchmarks.wire import Message",
]

# Each of these holds one sentence with which a test compares.
COMPARISONS = [
    "assert text == 'one two three four'",
    "assert text == f'one two three four {x} five'",
    "assert done, 'one two three four'",
    "with pytest.raises(ValueError, match='one two three four'):\n    f()",
    "@pytest.mark.parametrize('x', [('one two three four', 1)])\ndef test_x(x): ...",
    "assert all(f(match='one two three four') for _ in x)",
]

# None of these does.
NO_COMPARISONS = [
    "assert x == 'one two three'",
    "x = 'one two three four'",
    "f(help='a b c d')",
    "def f():\n    '''A b c d.'''\n",
]


def tree(root: Path, **files: str) -> Path:
    """A clean code base, and further files: two underscores in a key stand for a slash."""
    further = {f"{name.replace('__', '/')}.py": text for name, text in files.items()}
    for name, text in {**CLEAN, **further}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def measure(root: Path, name: str) -> Figure:
    return next(figure for figure in figures(read_house(root)) if figure.name == name)


def test_a_clean_tree_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(tree(tmp_path))]) == 0
    printed = capsys.readouterr().out
    assert "!" not in printed
    assert all(name in printed for name in BOUNDS)


def test_a_broken_tree_exits_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tree(tmp_path, exporter__a="class Plan: ...", exporter__b="class Plan: ..."))
    assert main(["--root", root]) == 0
    assert main(["--check", "--root", root]) == 1
    assert main(["--check", "--list", "class-names", "--root", root]) == 1
    assert capsys.readouterr().out.endswith("Plan: exporter/a.py:1, exporter/b.py:1\n")


def test_json_holds_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--root", str(tree(tmp_path))])
    entries = json.loads(capsys.readouterr().out)
    assert entries["fields"]["value"] == 2
    assert entries["fields"]["bound"] == BOUNDS["fields"]
    assert entries.keys() >= BOUNDS.keys()
    assert not any(entry["exceeded"] for entry in entries.values())


@pytest.mark.parametrize("arguments", [["--list", "no-such-figure"], ["--root", "/nowhere"]])
def test_wrong_usage_exits_with_two(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(tree(tmp_path)), *arguments])
    assert caught.value.code == 2


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.house", "--root", str(tree(tmp_path)), "--list", "fields"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["median_s", "images"]


def test_rooms_are_files_and_folders(tmp_path: Path) -> None:
    root = tree(tmp_path, benchmarks__cli="", benchmarks__html__page="", benchmarks__html__canvas="")
    assert measure(root, "rooms").items == ("cli", "html", "records")


def test_a_front_that_defines_something_is_a_room(tmp_path: Path) -> None:
    root = tree(tmp_path, benchmarks__cli="from benchmarks import VERSION")
    (root / "benchmarks/__init__.py").write_text("VERSION = 1\n")
    assert "__init__" in measure(root, "rooms").items
    assert measure(root, "arrows").items[0].split(" (") == ["cli -> __init__", "benchmarks/cli.py:1)"]


@pytest.mark.parametrize("text", IMPORTS)
def test_an_arrow_is_drawn_by_any_import(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, benchmarks__cli=text, benchmarks__wire="")
    assert [item.split(" (")[0] for item in measure(root, "arrows").items] == ["cli -> wire"]


def test_relative_imports_of_a_folder_are_resolved(tmp_path: Path) -> None:
    root = tree(tmp_path, benchmarks__html__page="from ..wire import a\nfrom . import canvas", benchmarks__wire="")
    assert [item.split(" (")[0] for item in measure(root, "arrows").items] == ["html -> wire"]


def test_what_is_no_import_draws_no_arrow(tmp_path: Path) -> None:
    text = "import os, wire\nimport importlib\nimportlib.import_module('benchmarks.wire')\nfrom benchmarks import cli"
    root = tree(tmp_path, benchmarks__cli=text, benchmarks__wire="")
    assert measure(root, "arrows").value == 0


def test_floors_are_the_longest_path(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        benchmarks__a="from benchmarks import b, d",
        benchmarks__b="from benchmarks import c",
        benchmarks__c="from benchmarks import d",
        benchmarks__d="",
    )
    assert measure(root, "floors").items == ("4: a", "3: b", "2: c", "1: d, records")


def test_a_circle_is_as_high_as_it_has_rooms(tmp_path: Path) -> None:
    files = {"benchmarks__a": "from benchmarks import b", "benchmarks__c": ""}
    root = tree(tmp_path, **files, benchmarks__b="from benchmarks import a, c")
    assert measure(root, "floors").items == ("3: a, b", "1: c, records")


def test_a_circle_through_type_checking_is_found(tmp_path: Path) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from runtimes.b import B\n"
    root = tree(tmp_path, runtimes__a=typed, runtimes__b="def f():\n    from runtimes import a\n")
    circles = measure(root, "file-circles")
    assert circles.value == 1
    assert circles.items[0].split(": ")[1] == "runtimes/a.py, runtimes/b.py; shortest"
    assert measure(root, "folder-circles").value == 0


def test_a_name_out_of_a_package_means_its_init(tmp_path: Path) -> None:
    root = tree(tmp_path, runtimes__artifact="from runtimes import Runtime\n")
    front = root / "runtimes/__init__.py"
    front.write_text("from runtimes.artifact import Artifact\n")
    assert measure(root, "file-circles").value == 1
    front.write_text("import importlib\n\ndef __getattr__(name):\n    return importlib.import_module(name)\n")
    assert measure(root, "file-circles").value == 0


def test_the_init_on_the_way_to_a_submodule_is_no_import(tmp_path: Path) -> None:
    root = tree(tmp_path, runtimes__trt__a="import runtimes.trt.b\n", runtimes__trt__b="")
    (root / "runtimes/trt/__init__.py").write_text("from runtimes.trt.a import A\n")
    assert measure(root, "file-circles").value == 0


def test_folders_in_a_circle_need_no_files_in_one(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        exporter__x__one="from exporter.y import two\n",
        exporter__y__two="",
        exporter__y__three="from exporter.x import four\n",
        exporter__x__four="",
    )
    assert measure(root, "file-circles").value == 0
    (circle,) = measure(root, "folder-circles").items
    members, way = circle.split("; ")
    assert members.split(": ")[1] == "exporter/x/, exporter/y/"
    assert way.split(" -> ")[1:] == ["exporter/y/", "exporter/x/"]


def test_circles_are_found_below_the_first_level(tmp_path: Path) -> None:
    files = {"exporter__x__deep__one": "from exporter.x import flat", "exporter__x__flat": "import exporter.x.deep.two"}
    root = tree(tmp_path, **files, exporter__x__deep__two="")
    assert measure(root, "folder-circles").value == 1


def test_class_names_with_two_meanings_are_found(tmp_path: Path) -> None:
    nested = "class Outer:\n    class Plan: ...\n"
    root = tree(tmp_path, exporter__a=nested, benchmarks__b="class Plan: ...\nclass _Plan: ...\n")
    assert measure(root, "class-names").items == ("Plan: exporter/a.py:2, benchmarks/b.py:1",)


@pytest.mark.parametrize("name", ["told", "_timed", "weights.taken_from", "measured_again", "Class.opened"])
def test_a_participle_is_found(tmp_path: Path, name: str) -> None:
    owner, _, method = name.rpartition(".")
    text = f"class {owner}:\n    def {method}(self): ...\n" if owner else f"async def {method}(): ...\n"
    assert measure(tree(tmp_path, exporter__a=text), "participles").value == 1


@pytest.mark.parametrize(
    "name", ["tell", "read", "run", "feed", "need_more", "_speed", "bind_timed", "__told__", "red"]
)
def test_other_words_are_no_participles(tmp_path: Path, name: str) -> None:
    assert measure(tree(tmp_path, exporter__a=f"def {name}(): ...\n"), "participles").value == 0


@pytest.mark.parametrize("decorator", ["property", "cached_property", "functools.cached_property"])
def test_a_property_may_be_a_state(tmp_path: Path, decorator: str) -> None:
    text = f"class Door:\n    @{decorator}\n    def closed(self): ...\n"
    assert measure(tree(tmp_path, exporter__a=text), "participles").value == 0


@pytest.mark.parametrize("text", COMPARISONS)
def test_a_sentence_is_found_where_a_test_compares(tmp_path: Path, text: str) -> None:
    found = measure(tree(tmp_path, tests__test_a=text), "sentences")
    assert found.value == 1
    assert found.items[0].startswith("tests/test_a.py:")


@pytest.mark.parametrize("text", NO_COMPARISONS)
def test_other_strings_are_no_sentences(tmp_path: Path, text: str) -> None:
    assert measure(tree(tmp_path, tests__test_a=text), "sentences").value == 0


def test_lines_are_those_below_benchmarks(tmp_path: Path) -> None:
    before = measure(tree(tmp_path), "lines").value
    root = tree(tmp_path, benchmarks__a="x = 1\n\n# no more\n", exporter__b="y = 2\n")
    assert (before, measure(root, "lines").value) == (4, 7)


def test_the_result_is_found_in_its_first_home(tmp_path: Path) -> None:
    root = tree(tmp_path, benchmarks__results="class Row:\n    one: int\n")
    assert measure(root, "fields").value == 2
    (root / "benchmarks/records/result.py").write_text("")
    assert measure(root, "fields").items == ("one",)


def test_a_result_that_is_not_found_fails_the_check(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "benchmarks/records/result.py").write_text("")
    assert measure(root, "fields").value is None
    assert main(["--check", "--root", str(root)]) == 1


def test_names_of_tests_end_at_sixty_characters(tmp_path: Path) -> None:
    fits, long = f"test_{'a' * 55}", f"test_{'b' * 56}"
    root = tree(tmp_path, tests__test_a=f"def {fits}(): ...\ndef {long}(): ...\ndef x{fits}(): ...\n")
    assert measure(root, "long-test-names").items == (f"tests/test_a.py:2: {long} (61)",)


def test_copies_and_long_files_are_for_information(tmp_path: Path) -> None:
    body = "    a = 1\n    b = 2\n    c = 3\n    return a + b + c\n"
    files = {"exporter__a": f"def f():\n{body}", "exporter__b": f"def g():\n    '''A docstring.'''\n{body}"}
    root = tree(tmp_path, **files, benchmarks__long="\n" * 401)
    assert measure(root, "copies").items[0].split(" = ") == ["exporter/a.py:1 f", "exporter/b.py:1 g"]
    assert measure(root, "long-files").items == ("401 benchmarks/long.py",)
    assert measure(root, "longest-file").value == 401
    assert main(["--check", "--root", str(root)]) == 0


def test_shares_describe_the_functions(tmp_path: Path) -> None:
    text = "def f():\n    '''A docstring.'''\n    a = 1\n    return a\n\ndef g():\n    return 0\n"
    found = {figure.name: figure.value for figure in figures(read_house(tree(tmp_path, exporter__a=text)))}
    assert (found["functions"], found["docstrings"]) == (2, 50.0)
    assert (found["body-median"], found["body-p90"], found["body-max"]) == (1.5, 2, 2)
