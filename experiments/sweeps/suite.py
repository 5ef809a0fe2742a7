"""What a suite of experiments is: variants of a run, seeds, and groups of variants that answer one question."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.fields import nearest

_NAME = re.compile(r"[a-z0-9_]+")
_RESERVED = ("learning", "log", "readme")  # other pages beside those of the groups
_OF_THE_SWEEP = {"seed", "seeds", "sandbox.cache_dir"}


class SuiteError(UserError):
    """A suite is wrong; the message says where."""


@dataclass(frozen=True)
class Variant:
    """A run that differs from others in its settings.

    name: of its folder. config: the configuration file; a relative path is looked for in the working directory, then in
        the repository. changes: settings by their full names without "config.".
    takes: "VARIANT:STAGE", the stage that it takes from the run of another variant with the same seed, "" for none.
    """

    name: str
    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    takes: str = ""

    @property
    def origin(self) -> tuple[str, str] | None:
        """The variant and the stage that it takes."""
        name, _, stage = self.takes.partition(":")
        return (name, stage) if name else None


@dataclass(frozen=True)
class Row:
    """A row of a group's table: an agent that a variant has evaluated.

    paper: the paper's mean relative gain in %, held-in and held-out; None where it has none.
    """

    label: str
    variant: str
    agent: str = "ppo"
    paper: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Variants that answer one question. rows: the others are compared with the first.

    claim: what the paper says, in a sentence. source: the place in the paper. note: what is different here.
    """

    name: str
    title: str
    claim: str
    source: str
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Suite:
    """Raises SuiteError for names that are not unique or not known, and for stages that are taken in a circle."""

    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if not self.seeds or not self.variants:
            raise SuiteError("a suite needs at least one seed and one variant")
        _check_distinct("seed", self.seeds)
        _check_distinct("variant", [variant.name for variant in self.variants])
        _check_distinct("group", [group.name for group in self.groups])
        for name in (*(variant.name for variant in self.variants), *(group.name for group in self.groups)):
            if not _NAME.fullmatch(name):
                raise SuiteError(f"{name!r} cannot name a folder: use small letters, digits and _")
        for group in self.groups:
            if group.name in _RESERVED:
                raise SuiteError(f"a group cannot be called {group.name!r}, as another page of results is")
            _check_distinct(f"row of group {group.name}", [row.label for row in group.rows])
            if len(group.rows) < 2:
                raise SuiteError(f"group {group.name} compares nothing: give it two rows or more")
            for row in group.rows:
                self.variant(row.variant)
                if "|" in row.label:
                    raise SuiteError(f"the label {row.label!r} has a |, which would end a cell of its table")
        for variant in self.variants:
            self.needs(variant)
            for name in sorted(_OF_THE_SWEEP & variant.changes.keys()):
                raise SuiteError(f"variant {variant.name!r} changes {name}, which the sweep sets itself")

    def variant(self, name: str) -> Variant:
        return _named(name, self.variants, "variant")

    def group(self, name: str) -> Group:
        return _named(name, self.groups, "group")

    def needs(self, variant: Variant) -> list[Variant]:
        """The variants that this one takes stages from, directly or through others, the nearest first."""
        found: list[Variant] = []
        current = variant
        while current.origin is not None:
            current = self.variant(current.origin[0])
            if current == variant or current in found:
                raise SuiteError(
                    f"variant {variant.name!r} takes its stages from itself, by way of {current.takes}"
                )
            found.append(current)
        return found

    def in_order(self, groups: Iterable[Group]) -> list[Variant]:
        """The variants of these groups with all that they need, each after those it needs."""
        ordered: dict[str, Variant] = {}
        for group in groups:
            for row in group.rows:
                variant = self.variant(row.variant)
                for one in (*reversed(self.needs(variant)), variant):
                    ordered.setdefault(one.name, one)
        return list(ordered.values())


def load_suite(path: str) -> Suite:
    """The result of a Python file's `get_suite()`. Raises SuiteError if it has none."""
    if not Path(path).is_file():
        raise SuiteError(
            f"--suite can't be read: there is no file {path}; e.g. experiments/ablations/suite.py"
        )
    try:
        get_suite = runpy.run_path(path, run_name="suite").get("get_suite")
        suite = get_suite() if callable(get_suite) else None
    except UserError as error:
        raise SuiteError(f"--suite can't be used: {path}: {error}") from error
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise SuiteError(f"--suite can't be used: {path} raises {type(error).__name__}: {error}") from error
    if not isinstance(suite, Suite):
        raise SuiteError(f"--suite can't be used: {path} has no get_suite() that returns a Suite")
    return suite


def _named(name: str, among: Iterable[Any], what: str) -> Any:
    for one in among:
        if one.name == name:
            return one
    names = [one.name for one in among]
    meant = nearest(name, names)
    guess = f"; did you mean {meant!r}?" if meant else ""
    raise SuiteError(f"there is no {what} {name!r}, only {', '.join(names)}{guess}")


def _check_distinct(what: str, names: Iterable[Any]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SuiteError(f"{what} {name!r} is given {count} times; give it once")
