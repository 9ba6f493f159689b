"""The frozen dataclasses of ``runtimes`` behave as those of the standard library; every such class is compared."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import runtimes
from runtimes.frozen_dataclass import dataclass as frozen
from runtimes.images.spec import Preprocessing

ROOT = Path(runtimes.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if re.search(r"^from runtimes\.frozen_dataclass import", path.read_text("utf-8"), re.MULTILINE)
)
CLASSES = [
    value
    for name in MODULES
    for value in vars(import_module(name)).values()
    if isinstance(value, type) and value.__module__ == name and dataclasses.is_dataclass(value)
]

SOURCE = """
@dataclass(frozen=True{more})
class Sample:
    first: int
    second: str = "two"
    third: tuple[int, ...] = field(default=(), metadata={{"omit_default": True}}, compare=False)
    fourth: list[int] = field(default_factory=list, repr=False, hash=False)
"""

CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "b", (3,), [4]), {}),
    ((), {"first": 1, "fourth": [2]}),
    ((1,), {"second": "c"}),
    ((), {}),
    ((), {"second": "c"}),
    ((1,), {"first": 2}),
    ((1,), {"fifth": 2}),
    ((1, "b", (), [], 5), {}),
    ((), {"first": 1, "fifth": 5}),
]


def _sample(decorator: object, more: str = "") -> Any:
    names = {"dataclass": decorator, "field": dataclasses.field, "__name__": __name__}
    exec(compile(SOURCE.format(more=more), "sample", "exec", dont_inherit=True), names)
    return names["Sample"]


def _outcome(cls: Any, args: tuple[Any, ...], named: dict[str, Any]) -> object:
    try:
        value = cls(*args, **named)
    except TypeError:
        return TypeError
    return repr(value), dataclasses.asdict(value), hash(value)


@pytest.mark.parametrize(("args", "named"), CALLS)
def test_calls_are_as_those_of_the_library(args: tuple[Any, ...], named: dict[str, Any]) -> None:
    assert _outcome(_sample(frozen), args, named) == _outcome(_sample(dataclasses.dataclass), args, named)


@pytest.mark.parametrize("more", ["", ", eq=False"])
def test_instances_are_as_those_of_the_library(more: str) -> None:
    ours, theirs = _sample(frozen, more), _sample(dataclasses.dataclass, more)
    for cls in (ours, theirs):
        one, same, other = cls(1), cls(1, third=(5,)), cls(2)
        assert ((one == same), (one != other)) == ((not more), True)
        assert len({one, same}) == (2 if more else 1)
        assert one.__eq__(1) is NotImplemented
        assert copy.copy(one).first == copy.deepcopy(one).first == dataclasses.replace(other, first=1).first
        for change in (partial(setattr, one, "first", 2), partial(delattr, one, "first")):
            with pytest.raises(dataclasses.FrozenInstanceError):
                change()
    shown, expected = (list(inspect.signature(cls).parameters.values()) for cls in (ours, theirs))
    assert shown[:3] == expected[:3]
    assert shown[3].name == expected[3].name
    assert ours.__match_args__ == theirs.__match_args__


def test_every_class_has_the_fields_it_shows() -> None:
    assert len(CLASSES) > 30
    for cls in CLASSES:
        fields = dataclasses.fields(cls)
        assert list(inspect.signature(cls).parameters) == [field.name for field in fields], cls
        assert vars(cls)["__dataclass_params__"].frozen, cls


def test_instances_travel_between_processes() -> None:
    sent = Preprocessing(256, (224, 224), 0, (0.5,), (0.5,), antialias=False)
    assert pickle.loads(pickle.dumps(sent)) == sent
    assert hash(pickle.loads(pickle.dumps(sent))) == hash(sent)


REFUSED = {
    "mutable": "@dataclass(frozen=False)\nclass Sample:\n    a: int",
    "no argument": "@dataclass(frozen=True)\nclass Sample:\n    a: int = field(init=False)",
    "by name only": "@dataclass(frozen=True)\nclass Sample:\n    a: int = field(kw_only=True)",
    "own repr": "@dataclass(frozen=True)\nclass Sample:\n    a: int\n    def __repr__(self): return ''",
    "inherited": "@dataclass(frozen=True)\nclass A:\n    a: int\n@dataclass(frozen=True)\nclass B(A):\n    b: int",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_do_is_refused(body: str) -> None:
    with pytest.raises(TypeError):
        exec(body, {"dataclass": frozen, "field": dataclasses.field, "__name__": __name__})
