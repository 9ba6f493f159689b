"""Networks from the user's own code: ``package.module:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from runtimes.errors import ArtifactError, ModelMismatchError, Reason, UsageError, nearest, quote

if TYPE_CHECKING:
    from torch import nn

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""A reference to an object: the dotted names of a module and of an object in it, with a colon between them."""


def is_factory(name: str) -> bool:
    """Return whether a text is ``package.module:factory`` and no file."""
    return _REFERENCE.fullmatch(name) is not None and not os.path.lexists(name)


def stem(name: str) -> str:
    """Return the last name of a reference, for the names of files: ``build`` for ``nets.small:build``."""
    return re.split(r"[.:]", name)[-1]


def build_module(name: str, notify: Callable[[Reason], None]) -> nn.Module:
    """Import the user's code, and return the module that it builds.

    The current folder is searched first, then the Python path. The code runs with all rights of this process.

    Args:
        name: The reference, ``package.module:factory``. The object is called without arguments, or is a module itself.
        notify: Receives the line that says which code runs.

    Raises:
        UsageError: There is no such Python module, or no such object in it.
        ArtifactError: The user's code raised an error.
        ModelMismatchError: The result is no ``torch.nn.Module``.
    """
    from torch import nn

    module_name, _, path = name.partition(":")
    with _current_folder_first():
        importlib.invalidate_caches()
        package = importlib.util.find_spec(module_name.partition(".")[0])
        if package is not None:
            notify(Reason("user-code-runs", f"{name}: runs your code from {quote(package.origin or 'a folder')}"))
        found = _attribute(_import(module_name), path)
        if not isinstance(found, nn.Module) and callable(found):
            try:
                found = found()
            except (Exception, SystemExit) as error:  # whatever the user's code raises
                raise ArtifactError(
                    f"{name} raised {_in_words(error)}",
                    code="factory-failed",
                    hint="the factory is called without arguments and returns a torch.nn.Module",
                ) from error
    if not isinstance(found, nn.Module):
        raise ModelMismatchError(
            f"{name} gives a {quote(type(found).__name__)}, but a torch.nn.Module is expected",
            code="factory-not-module",
            hint="name a function without arguments that returns the module, or a module",
        )
    return found


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """While it lasts, imports search the current folder first; afterwards last, so that it hides no library."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        raise UsageError(
            f"there is no Python module {name!r} in the current folder or on the Python path",
            code="code-not-found",
            hint=f"write {name.removesuffix('.py')}" if name.endswith(".py") else "PYTHONPATH=DIR adds a folder",
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> ArtifactError:
    return ArtifactError(
        f"the import of {name} raised {_in_words(error)}",
        code="code-import-failed",
        hint=f'python -c "import {name}" shows the traceback',
    )


def _attribute(owner: ModuleType, path: str) -> object:
    found: object = owner
    for part in path.split("."):
        if not hasattr(found, part):
            meant = nearest(part, (name for name in dir(found) if not name.startswith("_")))
            raise UsageError(
                f"the Python module {owner.__name__!r} has no {path!r}",
                code="factory-not-found",
                hint=None if meant is None else f"did you mean {meant}?",
            )
        found = getattr(found, part)
    return found


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {quote(error)}"
