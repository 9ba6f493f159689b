"""Names of folders that hold one part of a dataset each, such as ``train``, ``Test`` or ``validation_set``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Literal, TypeAlias

Part: TypeAlias = Literal["test", "validation", "train"]
"""A part of a dataset."""

PREFERENCE: dict[str, tuple[Part, ...]] = {
    "test": ("test", "validation", "train"),
    "train": ("train", "validation", "test"),
}
"""The parts in the order in which they are taken, by the wanted one."""

_NAME = re.compile(
    r"(?P<word>test(ing)?|val(id(ation)?)?|eval(uation)?|train(ing)?)[-_. ]?(set|data(set)?|split|images?)?",
    re.IGNORECASE,
)

_PARTS: dict[str, Part] = {"te": "test", "va": "validation", "ev": "validation", "tr": "train"}
"""The parts by the first two letters of their names."""


def parts_of(names: Collection[str]) -> dict[str, Part]:
    """Return the part of a dataset that each folder's name stands for. Other names are left out.

    Case does not count. A beginning that all names share, as in ``seg_train`` and ``seg_test``, is ignored.

    Args:
        names: The names of all folders at one place.
    """
    shared = re.match(r"(.+[-_. ])?", os.path.commonprefix(list(names))) if len(names) > 1 else None  # noqa: RUF071
    start = 0 if shared is None else shared.end()
    matches = {name: _NAME.fullmatch(name[start:]) for name in names}
    return {name: _PARTS[match["word"][:2].lower()] for name, match in matches.items() if match is not None}
