"""Frozen values: attrs classes whose equality, hash and repr are written once, not generated for each class.

Generating them costs 0.3 ms of CPU a class, and a command that lives for a tenth of a second defines seventy; see
docs/adr for the figures. Everything else of attrs works on them: fields, evolve, asdict, slots.
"""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

import attrs

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a frozen attrs class with slots; equal when type and compared fields are equal, and hashable."""
    for name, method in (("__eq__", _equals), ("__hash__", _hash), ("__repr__", _repr)):
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return attrs.frozen(eq=False, repr=False)(cls)


def values(value: Any) -> tuple[Any, ...]:
    """The compared fields of a frozen value, in order; a named tuple has no others."""
    if isinstance(value, tuple):
        return tuple(value)
    return tuple([getattr(value, a.name) for a in type(value).__attrs_attrs__ if a.eq])


def _equals(self: Any, other: object) -> Any:  # NotImplemented is no bool
    return values(self) == values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), values(self)))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{a.name}={getattr(self, a.name)!r}" for a in type(self).__attrs_attrs__ if a.repr)
    return f"{type(self).__qualname__}({shown})"


def evolve(value: T, /, **changes: Any) -> T:
    """A copy of a frozen value with some fields changed; TypeError for a field that it does not have."""
    copy: T = attrs.evolve(value, **changes)  # type: ignore[misc]
    return copy


def field_names(cls: type) -> tuple[str, ...]:
    """The names of a frozen class's fields, in order."""
    return tuple(a.name for a in attrs.fields(cls))
