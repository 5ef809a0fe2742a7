"""Fields of settings: besides a default, they have rules for their values and say whether they define a run.

A setting is a field of a frozen dataclass, made by `setting`; its annotation gives its type. `build` makes such a
dataclass, and those nested in it, from a mapping, and reports everything that is wrong at once, by full names.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import struct
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from types import MappingProxyType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mlagent_jax.errors import UserError

T = TypeVar("T")

_RULE = "rule"
_INT32 = 2**31 - 1  # the largest integer of JAX's default type


@dataclass(frozen=True)
class Rule:
    """Which values a field may have, beyond its type; for a tuple, which values its entries may have.

    at_least, above, at_most, below: bounds of a number. or_value: a value outside them that has a special meaning.
    choices: the only values allowed. filled: text or a tuple must not be empty. distinct: no entry may occur twice.
    keys: the dataclass whose fields a mapping may set, except those in `without`.
    defines_run: whether another value makes it another run. False if the results stay the same, up to rounding.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    or_value: float | None = None
    choices: tuple[Any, ...] = ()
    filled: bool = False
    distinct: bool = False
    keys: type | None = None
    without: tuple[str, ...] = ()
    defines_run: bool = True

    def range(self) -> str:
        """The bounds in words, such as "above 0 and at most 1, or -1"; "" if there are none."""
        names = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most))
        parts = [f"{name} {bound:,}" for name, bound in (*names, ("below", self.below)) if bound is not None]
        if self.at_least is not None and self.at_most is not None:
            parts = [f"from {self.at_least:,} to {self.at_most:,}"]
        other = "" if self.or_value is None else f", or {self.or_value:,}"
        return " and ".join(parts) + other if parts else ""

    def holds(self, value: float) -> bool:
        return value == self.or_value or not (
            (self.at_least is not None and value < self.at_least)
            or (self.above is not None and value <= self.above)
            or (self.at_most is not None and value > self.at_most)
            or (self.below is not None and value >= self.below)
        )


def setting(default: Any = MISSING, *, make: Any = MISSING, **rule: Any) -> Any:
    """A dataclass field with a `Rule`. make: a function that returns the default."""
    metadata = {_RULE: Rule(**rule)}
    if make is not MISSING:
        return dataclasses.field(default_factory=make, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Field:
    """One field of a dataclass of settings. kind: its type, without `| None`. optional: whether it may be None."""

    name: str
    kind: Any
    optional: bool
    rule: Rule
    required: bool

    @property
    def nested(self) -> bool:
        return isinstance(self.kind, type) and dataclasses.is_dataclass(self.kind)

    def expected(self) -> str:
        """The allowed values in words, such as "a whole number of at least 1"."""
        if self.rule.choices:
            some = "some" if get_origin(self.kind) is tuple else "one"
            names = ", ".join(str(choice) or "''" for choice in self.rule.choices)
            return f"{some} of {names}" + (", each once" if self.rule.distinct else "")
        inner = get_args(self.kind)[0] if get_origin(self.kind) is tuple else self.kind
        plain = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
        text = plain.get(inner, "settings by name")
        bounds = self.rule.range()
        if bounds:
            text += f" of {bounds}" if bounds.startswith("at") else f" {bounds}"
        if inner is not self.kind:
            text = f"a list ({text} each)"
        if self.rule.filled:
            text += ", not empty"
        if self.rule.distinct:
            text += ", none twice"
        return text


_KNOWN: dict[type, Mapping[str, Field]] = {}  # functools.cache takes no type[T], says mypy


def fields_of(cls: type) -> Mapping[str, Field]:
    """The fields of a dataclass of settings, by name."""
    if cls not in _KNOWN:
        _KNOWN[cls] = MappingProxyType(_read_fields(cls))
    return _KNOWN[cls]


def _read_fields(cls: type) -> dict[str, Field]:
    hints = get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        kind, optional = _without_none(hints[field.name])
        required = field.default is MISSING and field.default_factory is MISSING
        found[field.name] = Field(
            field.name, kind, optional, field.metadata.get(_RULE, Rule()), required=required
        )
    return found


def keys_of(field: Field) -> dict[str, Field]:
    """The keys that a mapping with the rule `keys` may have."""
    assert field.rule.keys is not None
    return {name: key for name, key in fields_of(field.rule.keys).items() if name not in field.rule.without}


def leaves(cls: type, where: str = "") -> Iterator[tuple[str, Field]]:
    """All fields of a dataclass and of those nested in it, by full name. Optional sections are themselves included."""
    for name, field in fields_of(cls).items():
        full = f"{where}.{name}" if where else name
        if field.nested:
            if field.optional:
                yield full, field
            yield from leaves(field.kind, full)
        elif field.rule.keys:
            yield from ((f"{full}.{key}", inner) for key, inner in keys_of(field).items())
        else:
            yield full, field


def build(cls: type[T], values: Mapping[str, Any], where: str, problems: list[str]) -> T | None:
    """Makes a dataclass, with those nested in it, from a mapping. Returns None and adds to `problems` if it cannot."""
    if not isinstance(values, Mapping):
        problems.append(f"{where} is {values!r}, but must be settings by name")
        return None
    fields, before = fields_of(cls), len(problems)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            problems.append(unknown_setting(f"{where}.{name}", [f"{where}.{known}" for known in fields]))
        else:
            given[name] = _value(fields[name], value, f"{where}.{name}", problems)
    problems += [
        f"{where}.{name} is missing from the configuration"
        for name, field in fields.items()
        if field.required and name not in given
    ]
    if len(problems) > before:
        return None
    try:
        return cls(**given)
    except (UserError, TypeError, ValueError) as error:
        text = str(error)
        problems.append(text if text.startswith("config.") else f"{where}: {text}")
        return None


def check(settings: Any, where: str) -> None:
    """Checks the fields of a dataclass and of those nested in it. Raises UserError with everything that is wrong."""
    raise_for(_problems(settings, where))


def raise_for(problems: Sequence[str], error: type[UserError] = UserError) -> None:
    """Raises `error` with all the problems, if there are any."""
    if len(problems) == 1:
        raise error(problems[0])
    if problems:
        raise error(f"{len(problems)} settings are wrong:" + "".join(f"\n  {line}" for line in problems))


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """A message for a setting that does not exist, which suggests the most similar one."""
    close = nearest(name, known)
    return f"{name} is not a setting" + (
        f"; did you mean {close}?" if close else f"; the settings are {', '.join(known)}"
    )


def nearest(name: str, known: Sequence[str]) -> str:
    """The known full name that is most similar, by its last part in any section or as a whole; "" if none is."""
    last = name.rpartition(".")[2]
    by_last = [full for full in known if full.rpartition(".")[2] == last]
    if by_last:
        return max(by_last, key=lambda full: difflib.SequenceMatcher(None, name, full).ratio())
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    lasts = {full.rpartition(".")[2]: full for full in known}
    close_last = difflib.get_close_matches(last, list(lasts), n=1, cutoff=0.75)
    return close[0] if close else lasts[close_last[0]] if close_last else ""


def flat(settings: Any, where: str = "", only_of_run: bool = False) -> dict[str, Any]:
    """All values by full name, without sections that are None. only_of_run: only those that define a run."""
    found: dict[str, Any] = {}
    for name, field in fields_of(type(settings)).items():
        if only_of_run and not field.rule.defines_run:
            continue
        full, value = f"{where}.{name}" if where else name, getattr(settings, name)
        if field.nested:
            found |= {} if value is None else flat(value, full, only_of_run)
        elif field.rule.keys:
            keys = keys_of(field)
            found |= {
                f"{full}.{key}": inner
                for key, inner in value.items()
                if keys[key].rule.defines_run or not only_of_run
            }
        else:
            found[full] = value
    return found


def _problems(settings: Any, where: str) -> list[str]:
    problems: list[str] = []
    for name, field in fields_of(type(settings)).items():
        value = getattr(settings, name)
        if field.nested and value is not None:
            problems += _problems(value, f"{where}.{name}")
        else:
            _value(field, value, f"{where}.{name}", problems)
    return problems


def _value(field: Field, value: Any, where: str, problems: list[str]) -> Any:
    """The value as the dataclass stores it. Adds to `problems` if it is not allowed."""
    if field.optional and (value is None or (field.nested and value == {})):
        return None
    if field.nested:
        return build(field.kind, value, where, problems)
    if field.rule.keys:
        return _mapping(field, value, where, problems)
    if get_origin(field.kind) is tuple:
        return _tuple(field, value, where, problems)
    if not _is_one(field.kind, field.rule, value) or (field.rule.filled and not value.strip()):
        problems.append(f"{where} is {value!r}, but must be {field.expected()}{_hint(value, field)}")
    elif field.kind is float:
        return float(value)
    return value


def _mapping(field: Field, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{where} is {value!r}, but must be settings by name")
        return value
    keys, made = keys_of(field), {}
    for name, inner in value.items():
        if name not in keys:
            problems.append(unknown_setting(f"{where}.{name}", [f"{where}.{known}" for known in keys]))
        else:
            made[name] = _value(keys[name], inner, f"{where}.{name}", problems)
    return made


def _tuple(field: Field, value: Any, where: str, problems: list[str]) -> Any:
    kind, rule = get_args(field.kind)[0], field.rule
    if not isinstance(value, list | tuple):
        problems.append(f"{where} is {value!r}, but must be {field.expected()}")
        return value
    entries = tuple(value)
    wrong = [entry for entry in entries if not _is_one(kind, rule, entry)]
    twice = [entry for index, entry in enumerate(entries) if rule.distinct and entry in entries[:index]]
    if wrong or (rule.filled and not entries):
        named = f"has {wrong[0]!r}" if wrong else "is empty"
        problems.append(f"{where} {named}, but must be {field.expected()}{_choice_hint(wrong, rule)}")
    elif twice:
        problems.append(f"{where} names {twice[0]!r} twice; name it once")
    return entries


def _is_one(kind: Any, rule: Rule, value: Any) -> bool:
    """Whether the value has this type, is finite, and is allowed by the rule."""
    if rule.choices and value not in rule.choices:
        return False
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return False
    if kind is int:
        return abs(value) <= _INT32 and rule.holds(value)
    single = _float32(value)
    return math.isfinite(single) and (single != 0 or value == 0) and rule.holds(single)


def _float32(value: float) -> float:
    """The value rounded to float32, in which 1e-60 is 0 and 1e60 is infinite."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.inf


def _hint(value: Any, field: Field) -> str:
    """What else to say about a number that the machine's types cannot hold."""
    if field.kind is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) > _INT32:
        return "" if field.rule.at_most is not None else f" and at most {_INT32:,}"
    if field.kind is float and isinstance(value, float) and not isinstance(value, bool):
        return "" if math.isfinite(value) and 1e-37 < abs(value) < 1e38 else " that float32 can represent"
    return ""


def _choice_hint(wrong: Sequence[Any], rule: Rule) -> str:
    """Suggests the choice that is most similar to the first wrong one, if any is."""
    close = difflib.get_close_matches(str(wrong[0]), map(str, rule.choices), n=1) if wrong else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(hint) if part is not type(None))
        return kind, True
    return hint, False
