"""Which result of one file is to be compared with which of the other, and what forbids it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.records.identity import FIELDS, Value, format_load_value, load_value
from benchmarks.records.result import Result
from runtimes.errors import CompatibilityError


@dataclass(frozen=True)
class FieldDifference:
    """A field in which two results differ, and what they have there, in words."""

    field: str
    old: str
    new: str


@dataclass(frozen=True)
class Matches:
    """The results of one configuration in both files, with their differences, and those that have no fellow."""

    pairs: tuple[tuple[Result, Result, tuple[FieldDifference, ...]], ...]
    only_old: tuple[Result, ...]
    only_new: tuple[Result, ...]


def name(result: Result) -> str:
    """The configuration in a few words."""
    of = result.identity
    parts = [" ".join(filter(None, (of.backend, of.precision, of.file))), f"batch {of.batch}"]
    if result.load is not None:
        parts.append(f"load {format_load(result)}")
    if result.asked.cuda_graphs is False:
        parts.append("no CUDA graphs")
    return f"{of.subject or of.artifact}: {', '.join(parts)}"


def format_load(result: Result) -> str:
    """The load's shape in a few words."""
    return format_load_value(load_value(result))


def differences(old: Result, new: Result) -> tuple[FieldDifference, ...]:
    """In what the two differ. What a result that gave no number ran on was only asked for, and is not counted."""
    both = old.status == new.status == "ok"
    return tuple(
        FieldDifference(field.name, field.text(field.of(old)), field.text(field.of(new)))
        for field in FIELDS
        if (field.names or both) and field.of(old) != field.of(new)
    )


def match_results(old: Sequence[Result], new: Sequence[Result], across: Collection[str] = ()) -> Matches:
    """Finds for each result of ``new`` the result of ``old`` that it is to be compared with.

    First those that agree in every field, then those that differ in nothing but the fields ``across``. A result is
    without a fellow where the other file has none of its configuration.

    Raises:
        CompatibilityError: two results are of one configuration and of different conditions; one could be compared with
            several; or no result has a fellow.
    """
    search = _ResultMatcher(old, frozenset(across))
    pairs: dict[int, tuple[Result, Result, tuple[FieldDifference, ...]]] = {}
    for exact in (True, False):
        for index in sorted(range(len(new)), key=lambda index: new[index].status != "ok"):
            if index not in pairs and (found := search.fellow(new[index], exact)):
                pairs[index] = (found[0], new[index], found[1])
    search.check()
    if not old or not new:
        raise CompatibilityError(f"{'OLD' if not old else 'NEW'} has no rows to compare", code="nothing-to-compare")
    if not pairs:
        nearest = min((differences(one, other) for one in old for other in new), key=len)
        raise CompatibilityError(
            f"no row of NEW is of a configuration of OLD; the nearest two differ in {format_differences(nearest)}",
            code="no-common-configuration",
            hint=f"if that is meant: {' '.join(f'--across {one.field}' for one in nearest)}",
        )
    return Matches(
        tuple(pairs[index] for index in sorted(pairs)),
        tuple(result for result in old if id(result) not in search.taken),
        tuple(result for index, result in enumerate(new) if index not in pairs),
    )


class _ResultMatcher:
    """The old results by configuration, and what was found so far."""

    def __init__(self, old: Sequence[Result], across: frozenset[str]) -> None:
        self.taken: set[int] = set()
        self._across = across
        self._exact: set[int] = set()
        self._refused: list[tuple[Result, tuple[FieldDifference, ...]]] = []
        self._named: dict[tuple[Value, ...], list[Result]] = {}
        for result in old:
            self._named.setdefault(self._names(result), []).append(result)

    def _names(self, result: Result) -> tuple[Value, ...]:
        return tuple(field.of(result) for field in FIELDS if field.names and field.name not in self._across)

    def fellow(self, result: Result, exact: bool) -> tuple[Result, tuple[FieldDifference, ...]] | None:
        """The old result to compare it with, if there is one: in every field, or but for those that may differ."""
        there = [one for one in self._named.get(self._names(result), ()) if id(one) not in self._exact]
        found = [(one, differences(one, result)) for one in there]
        may_differ = set() if exact else self._across
        allowed = [(one, apart) for one, apart in found if {each.field for each in apart} <= may_differ]
        if not allowed:
            if not exact and found:
                self._refused.append((result, min((apart for _, apart in found), key=len)))
            return None
        # Last counts what is not counted as a difference from a result that gave no number.
        distances = [(len(apart), sum(field.of(one) != field.of(result) for field in FIELDS)) for one, apart in allowed]
        alike = [pair for pair, distance in zip(allowed, distances, strict=True) if distance == min(distances)]
        best = alike[0]
        if len(alike) > 1 and not exact:
            names = "; ".join(name(one) for one, _ in alike)
            raise CompatibilityError(
                f"{name(result)}: {len(alike)} rows of OLD are as near to it: {names}",
                code="match-ambiguous",
                hint="name fewer fields with --across",
            )
        self.taken.add(id(best[0]))
        if exact:
            self._exact.add(id(best[0]))
        return best

    def check(self) -> None:
        """Refuses results of one configuration that were measured under different conditions."""
        if not self._refused:
            return
        result, apart = self._refused[0]
        more = f", and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
        fields = dict.fromkeys(d.field for _, each in self._refused for d in each if d.field not in self._across)
        raise CompatibilityError(
            f"not alike, so not compared: {name(result)}{more}: {format_differences(apart)}",
            code="conditions-differ",
            hint=f"if that is meant: {' '.join(f'--across {field}' for field in fields)}",
        )


def format_differences(apart: Sequence[FieldDifference]) -> str:
    """The differences in words."""
    return ", ".join(f"{one.field} {one.old} against {one.new}" for one in apart)
