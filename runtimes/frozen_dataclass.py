"""``dataclass``: the standard library's frozen dataclasses, without the time of compiling their methods.

``dataclasses.dataclass(frozen=True)`` writes seven methods as text and compiles them, about 0.8 ms a class. A process
that opens an artifact defines some fifty such classes, which was most of the time of importing ``runtimes``. The
methods here read the fields instead of being compiled. All else is the standard library's: ``dataclasses.fields``,
``replace`` and ``asdict`` work, and so do type checkers, to which this is ``dataclasses.dataclass``.

Creating an instance takes about a microsecond longer. Classes of which many instances are created in a loop should stay
with the standard library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, eq: bool = True) -> Callable[[type], type]:
        """Return a decorator that makes a class a frozen dataclass.

        Args:
            frozen: Always true. It is written out, so that a reader and a type checker see it.
            eq: Whether instances compare and hash by their fields, instead of by identity.

        Raises:
            TypeError: ``frozen`` is false.
        """
        if not frozen:
            raise TypeError("dataclasses that may change are those of the standard library")

        def decorate(cls: type) -> type:
            own = vars(cls).keys() & {"__init__", "__repr__", "__eq__", "__hash__"}
            if own or any(dataclasses.is_dataclass(base) for base in cls.__mro__[1:]):
                raise TypeError(f"{cls.__name__} defines {', '.join(sorted(own)) or 'a dataclass that is inherited'}")
            dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
            cls.__dataclass_params__.frozen, cls.__dataclass_params__.eq = True, eq
            fields = dataclasses.fields(cls)
            cls.__init__ = _initialiser(cls, fields)
            cls.__signature__ = _Signature()
            cls.__repr__ = _representation(fields)
            cls.__setattr__, cls.__delattr__ = _refuse_assignment, _refuse_deletion
            if eq:
                cls.__eq__, cls.__hash__ = _comparison(fields), _hash(fields)
            return cls

        return decorate


_Fields = tuple["dataclasses.Field[Any]", ...]


def _initialiser(cls: type, fields: _Fields) -> Callable[..., None]:
    names = tuple(field.name for field in fields)
    known = frozenset(names)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    factories = {
        field.name: field.default_factory for field in fields if field.default_factory is not dataclasses.MISSING
    }
    if any(not field.init or field.kw_only for field in fields):
        raise TypeError(f"{cls.__name__} has a field that is not an argument, or one by name only")
    checked = hasattr(cls, "__post_init__")

    def initialise(self: Any, *args: object, **named: object) -> None:
        state = self.__dict__
        state.update(defaults)
        if args:
            state.update(zip(names, args, strict=False))
        if named:
            state.update(named)
        for name, factory in factories.items():
            if name not in state:
                state[name] = factory()
        if len(state) != len(names) or len(args) > len(names) or not known.issuperset(named):
            raise _argument_error(cls, fields, args, named)
        if args and named and not named.keys().isdisjoint(names[: len(args)]):
            raise _argument_error(cls, fields, args, named)
        if checked:
            self.__post_init__()

    return initialise


def _argument_error(cls: type, fields: _Fields, args: tuple[object, ...], named: dict[str, object]) -> TypeError:
    """Return the error for arguments that do not fit the fields."""
    import inspect

    try:
        inspect.signature(cls).bind(*args, **named)
    except TypeError as error:
        return TypeError(f"{cls.__qualname__}(): {error}")
    return TypeError(f"{cls.__qualname__}() takes the arguments {', '.join(field.name for field in fields)}")


class _Signature:
    """The signature of the class for ``inspect.signature`` and ``help``, made when it is asked for."""

    def __get__(self, instance: object, owner: type) -> Any:
        """Return the signature, or nothing for an instance, which cannot be called."""
        import inspect

        if instance is not None:
            raise AttributeError("__signature__")
        return inspect.Signature([_parameter(inspect, field) for field in dataclasses.fields(owner)])


def _parameter(inspect: Any, field: dataclasses.Field[Any]) -> Any:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory
    return inspect.Parameter(
        field.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
        annotation=field.type,
    )


def _representation(fields: _Fields) -> Callable[[Any], str]:
    names = [field.name for field in fields if field.repr]

    def represent(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    return represent


def _values(fields: _Fields) -> Callable[[Any], tuple[Any, ...]]:
    names = [field.name for field in fields if field.compare]
    return lambda instance: tuple([getattr(instance, name) for name in names])


def _comparison(fields: _Fields) -> Callable[[Any, object], bool]:
    values = _values(fields)

    def compare(self: Any, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return compare


def _hash(fields: _Fields) -> Callable[[Any], int]:
    values = _values(tuple(field for field in fields if field.hash is not False))
    return lambda self: hash(values(self))


def _refuse_assignment(self: Any, name: str, value: object) -> None:  # noqa: ARG001
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: Any, name: str) -> None:  # noqa: ARG001
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
