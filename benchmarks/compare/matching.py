"""Which results of two files are compared, and what forbids a comparison."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.records.identity import FIELDS, Value, format_load_value, load_value
from benchmarks.records.result import Result
from runtimes.errors import CompatibilityError


@dataclass(frozen=True)
class FieldDifference:
    """A field in which two results differ.

    Attributes:
        field: The name of the field.
        old: The old value in words.
        new: The new value in words.
    """

    field: str
    old: str
    new: str


@dataclass(frozen=True)
class Matches:
    """The results of two files, matched by configuration.

    Attributes:
        pairs: The old result, the new result and their differences, in the order of the new file.
        only_old: The old results without a new one.
        only_new: The new results without an old one.
    """

    pairs: tuple[tuple[Result, Result, tuple[FieldDifference, ...]], ...]
    only_old: tuple[Result, ...]
    only_new: tuple[Result, ...]


def name(result: Result) -> str:
    """Return the configuration of a result in a few words."""
    identity = result.identity
    parts = [" ".join(filter(None, (identity.backend, identity.precision, identity.file))), f"batch {identity.batch}"]
    if result.load is not None:
        parts.append(f"load {format_load(result)}")
    if result.asked.cuda_graphs is False:
        parts.append("no CUDA graphs")
    return f"{identity.subject or identity.artifact}: {', '.join(parts)}"


def format_load(result: Result) -> str:
    """Return the load shape of a result in a few words."""
    return format_load_value(load_value(result))


def differences(old: Result, new: Result) -> tuple[FieldDifference, ...]:
    """Return the fields in which two results differ.

    If a result was not measured, its conditions are only requested values, so only the configuration is compared.

    Args:
        old: The old result.
        new: The new result.
    """
    both = old.status == new.status == "ok"
    return tuple(
        FieldDifference(field.name, field.text(field.of(old)), field.text(field.of(new)))
        for field in FIELDS
        if (field.names or both) and field.of(old) != field.of(new)
    )


def match_results(old: Sequence[Result], new: Sequence[Result], across: Collection[str] = ()) -> Matches:
    """Find for each new result the old result to compare with.

    Results that agree in every field are matched first, then results that differ only in the fields ``across``. A
    result stays unmatched if the other file has no result of its configuration.

    Args:
        old: The old results.
        new: The new results.
        across: The names of the fields that may differ.

    Raises:
        CompatibilityError: Two results of one configuration have different conditions, a result could be compared with
            several, or no results match.
    """
    search = _ResultMatcher(old, frozenset(across))
    pairs: dict[int, tuple[Result, Result, tuple[FieldDifference, ...]]] = {}
    for exact in (True, False):
        for index in sorted(range(len(new)), key=lambda index: new[index].status != "ok"):
            if index not in pairs and (match := search.find_match(new[index], exact)):
                pairs[index] = (match[0], new[index], match[1])
    search.check()
    if not old or not new:
        raise CompatibilityError(f"{'OLD' if not old else 'NEW'} has no rows to compare", code="nothing-to-compare")
    if not pairs:
        nearest = min((differences(one, other) for one in old for other in new), key=len)
        raise CompatibilityError(
            f"OLD and NEW have no common configuration; the nearest rows differ in {format_differences(nearest)}",
            code="no-common-configuration",
            hint=f"allow the difference with {' '.join(f'--across {difference.field}' for difference in nearest)}",
        )
    return Matches(
        tuple(pairs[index] for index in sorted(pairs)),
        tuple(result for result in old if id(result) not in search.taken),
        tuple(result for index, result in enumerate(new) if index not in pairs),
    )


class _ResultMatcher:
    """The old results by configuration, and the matches so far."""

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

    def find_match(self, result: Result, exact: bool) -> tuple[Result, tuple[FieldDifference, ...]] | None:
        """Return the old result to compare with, and the differences; if ``exact``, without differences."""
        candidates = [other for other in self._named.get(self._names(result), ()) if id(other) not in self._exact]
        matches = [(other, differences(other, result)) for other in candidates]
        may_differ = set() if exact else self._across
        allowed = [(other, apart) for other, apart in matches if {each.field for each in apart} <= may_differ]
        if not allowed:
            if not exact and matches:
                self._refused.append((result, min((apart for _, apart in matches), key=len)))
            return None
        # The second number breaks ties: it also counts conditions of results that were not measured.
        distances = [
            (len(apart), sum(field.of(other) != field.of(result) for field in FIELDS)) for other, apart in allowed
        ]
        nearest = [match for match, distance in zip(allowed, distances, strict=True) if distance == min(distances)]
        best = nearest[0]
        if len(nearest) > 1 and not exact:
            names = "; ".join(name(other) for other, _ in nearest)
            raise CompatibilityError(
                f"{name(result)}: {len(nearest)} rows of OLD match equally well: {names}",
                code="match-ambiguous",
                hint="name fewer fields with --across",
            )
        self.taken.add(id(best[0]))
        if exact:
            self._exact.add(id(best[0]))
        return best

    def check(self) -> None:
        """Raise ``CompatibilityError`` if results of one configuration have different conditions."""
        if not self._refused:
            return
        result, apart = self._refused[0]
        more = f", and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
        fields = dict.fromkeys(d.field for _, each in self._refused for d in each if d.field not in self._across)
        raise CompatibilityError(
            f"the conditions of {name(result)}{more} differ: {format_differences(apart)}",
            code="conditions-differ",
            hint=f"allow the difference with {' '.join(f'--across {field}' for field in fields)}",
        )


def format_differences(apart: Sequence[FieldDifference]) -> str:
    """Return the differences in words."""
    return ", ".join(f"{difference.field} ({difference.old} before, {difference.new} now)" for difference in apart)
