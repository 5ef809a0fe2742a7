"""The flags of a run's configuration: `--config` names a Python file, and every field has a flag of its own."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from absl import flags
from ml_collections import ConfigDict

from experiments.settings import Settings, SettingsError
from mlagent_jax.fields import Field, leaves
from mlagent_jax.models.config import EXECUTION

_EXAMPLE = "--config=experiments/configs/quickstart.py"
_BOOLEANS = {
    "true": True,
    "t": True,
    "1": True,
    "yes": True,
    "false": False,
    "f": False,
    "0": False,
    "no": False,
}
_UNPARSED = (ValueError, SyntaxError)


def define_flags() -> None:
    """Defines `--config`, and `--config.SECTION.FIELD` for every setting, whether the file has it or not."""
    flags.DEFINE_string("config", None, "Configuration file. --config.SECTION.FIELD=VALUE sets a field.")
    for name, field in leaves(Settings, "config"):
        flags.DEFINE_flag(_FieldFlag(name, field), module_name=__name__)


def given_config() -> ConfigDict:
    """The configuration in the file of `--config`, with the fields that flags set. Raises SettingsError."""
    path = flags.FLAGS["config"].value
    if not path:
        raise SettingsError(f"--config is missing: name a configuration file, e.g. {_EXAMPLE}")
    config = load_config_file(path)
    changes = {
        name.removeprefix("config."): flags.FLAGS[name].value
        for name, _ in leaves(Settings, "config")
        if flags.FLAGS[name].present
    }
    config = with_changes(config, changes)
    pretrained = (config.get("model") or {}).get("pretrained")
    own = [
        name
        for name in changes
        if name.startswith("model.shape.") and name.rpartition(".")[2] not in EXECUTION
    ]
    if pretrained and own:
        raise SettingsError(
            f"config.{own[0]} is {changes[own[0]]!r} by a flag, but the architecture comes from {pretrained} "
            "(config.model.pretrained); leave one of the two out"
        )
    return config


def load_config_file(path: str) -> ConfigDict:
    """The result of a Python file's `get_config()`. Raises SettingsError if the file has no configuration."""
    if not Path(path).is_file():
        raise SettingsError(f"--config can't be read: there is no file {path}; e.g. {_EXAMPLE}")
    try:
        get_config = runpy.run_path(path, run_name="config").get("get_config")
        config = get_config() if callable(get_config) else None
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SettingsError(f"--config can't be used: {path} raises {reason}; fix the file") from error
    if config is None and not callable(get_config):
        raise SettingsError(
            f"--config can't be used: {path} defines no function get_config(); e.g. {_EXAMPLE}"
        )
    if not isinstance(config, ConfigDict):
        raise SettingsError(
            f"--config can't be used: get_config() of {path} returns {type(config).__name__}, not a ConfigDict"
        )
    return config


def with_changes(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy with these fields set, by their full names without "config."; missing sections are created."""
    tree = config.to_dict()
    for name, value in sorted(changes.items(), key=lambda item: item[0].count(".")):
        *parents, last = name.split(".")
        section = tree
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = value
    return ConfigDict(tree)


class _FieldFlag(flags.Flag[Any]):
    """A field of the settings. A value that cannot be parsed stays text, and is reported with all other mistakes."""

    def __init__(self, name: str, field: Field) -> None:
        super().__init__(
            _FieldParser(field), None, name, None, f"{field.expected()}.", boolean=field.kind is bool
        )


class _FieldParser(flags.ArgumentParser[Any]):
    def __init__(self, field: Field) -> None:
        self._field = field
        self.takes_list = get_origin(field.kind) is tuple

    def parse(self, argument: Any) -> Any:
        return _read(self._field, argument) if isinstance(argument, str) else argument


def _read(field: Field, text: str) -> Any:
    kind = field.kind
    if field.optional and text.lower() in ("none", ""):
        return None
    if field.nested:
        raise ValueError(
            f"it is a section: set its fields one by one, or none to switch it off; it is {text!r}"
        )
    if get_origin(kind) is tuple:
        return _read_tuple(get_args(kind)[0], text)
    return _read_one(kind, text)


def _read_one(kind: Any, text: str) -> Any:
    try:
        if kind is bool:
            return _BOOLEANS.get(text.lower(), text)
        return kind(text) if kind in (int, float) else text
    except _UNPARSED:
        return text


def _read_tuple(kind: Any, text: str) -> tuple[Any, ...]:
    """Parses `a,b` or Python's `('a', 'b')`."""
    if text[:1] in ("(", "["):
        try:
            value = ast.literal_eval(text)
            return tuple(value) if isinstance(value, list | tuple) else (value,)
        except _UNPARSED:
            return (text,)
    return tuple(_read_one(kind, part.strip()) for part in text.split(",")) if text.strip() else ()
