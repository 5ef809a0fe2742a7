"""Command lines of the programs: no argument is ignored, and every mistake is reported in one sentence."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

from absl import app, flags

from mlagent_jax.errors import UserError
from mlagent_jax.fields import nearest

INTERRUPTED = 130  # a shell's exit status after Ctrl-C
USAGE_ERROR = 2  # and after a command line that cannot be parsed
_FLAG_VALUES = ("true", "false", "t", "f", "1", "0")  # of a boolean flag

_REPEATED = "already defined as"  # absl's message

Main = Callable[[Sequence[str]], int | None]


def run_program(main: Main, positional: bool = False) -> None:
    """Parses the flags, calls `main` with the program's name and its positional arguments, and exits with its result.

    positional: whether the program takes positional arguments; if not, any is an error. A UserError and a full disk are
    reported without a traceback.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else it logs each request to a language model
    app.run(_with_plain_errors(main), flags_parser=lambda argv: parse(argv, positional))


def refuse_unread(command: str, takes: Collection[str], of: Collection[str]) -> None:
    """Raises UserError for a flag that was given but that `command` does not use.

    takes: the names of the flags that it uses. of: those of all commands.
    """
    for name in of:
        if flags.FLAGS[name].present and name not in takes:
            listed = ", ".join(f"--{known}" for known in of if known in takes)
            raise UserError(
                f"--{name} is not a flag of {command}, which takes {listed or 'no flags'}; leave it out"
            )


def _with_plain_errors(main: Main) -> Main:
    def run(argv: Sequence[str]) -> int | None:
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" ({error.filename})" if error.filename else ""
            print(f"error: the disk is full{where}: free some space, and start again", file=sys.stderr)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            return INTERRUPTED
        return 1

    return run


def parse(argv: Sequence[str], positional: bool) -> list[str]:
    """absl's parser, made strict. Exits with `USAGE_ERROR` and a sentence for anything that absl would ignore."""
    known = flags.FLAGS
    for name in known:
        if known[name].parser is not None and not isinstance(known[name], flags.MultiFlag):
            known[name].allow_overwrite = False  # of a flag given twice, one value would be ignored
    try:
        _check_values(argv)
        left = known(list(argv))
        if not positional:
            _refuse_positional(argv, left[1:])
    except flags.UnrecognizedFlagError as error:
        print(f"error: {_unknown_flag(error.flagname)}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    except (flags.Error, ValueError, UserError) as error:
        text = " ".join(str(error).split())
        remedy = ", but one of the two values would be ignored; give it once" if _REPEATED in text else ""
        print(f"error: {text}{remedy}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    return left


def _check_values(argv: Sequence[str]) -> None:
    """Raises UserError for a flag without a value; absl would use the next flag as its value."""
    for word, following in pairwise([*argv[1:], ""]):
        if word == "--":
            return
        flag = _flag(word)
        if flag is None or flag.boolean or "=" in word:
            continue
        if following.startswith("--"):
            raise UserError(f"--{flag.name} has no value: write --{flag.name}=VALUE")


def _refuse_positional(argv: Sequence[str], left: Sequence[str]) -> None:
    """Raises UserError for the first positional argument, with a guess at what was meant."""
    if not left:
        return
    word = left[0]
    before = next((one for one, other in pairwise(argv) if other == word and one.startswith("-")), "")
    raise UserError(f"the argument {word!r} has no meaning here: {_suggestion(word, before)}")


def _suggestion(word: str, before: str) -> str:
    name, equals, value = word.partition("=")
    if equals:
        full = next((one for one in (name, f"config.{name}") if one in flags.FLAGS), "")
        full = full or nearest(name, list(flags.FLAGS))
        if full:
            return f"did you mean --{full}={value}?"
    flag = _flag(before)
    if flag is not None and flag.boolean and word.lower() in _FLAG_VALUES:
        return f"did you mean --{flag.name}={word.lower()}?"
    if flag is not None and "=" in before and _takes_list(flag):
        return f"did you mean {before},{word}?"
    if word in flags.FLAGS:
        return f"did you mean --{word}?"
    return "a flag is written --NAME=VALUE"


def _takes_list(flag: flags.Flag[Any]) -> bool:
    return isinstance(flag.parser, flags.ListParser) or getattr(flag.parser, "takes_list", False)


def _flag(word: str) -> flags.Flag[Any] | None:
    """The flag that an argument sets, or None."""
    if not word.startswith("-"):
        return None
    name = word.lstrip("-").partition("=")[0]
    for one in (name, name.removeprefix("no")):
        if one in flags.FLAGS and (one == name or flags.FLAGS[one].boolean):
            return flags.FLAGS[one]
    return None


def _unknown_flag(name: str) -> str:
    known = list(flags.FLAGS)
    if name.startswith("config."):
        settings = [one for one in known if one.startswith("config.")]
        meant = nearest(name, settings)
        sections = [one for one in settings if one.startswith(f"{name}.")]
        if sections:
            return f"--{name} is a section; set its fields one by one, such as --{sections[0]}=VALUE"
        what = "the configuration has no such field"
    else:
        meant, what = nearest(name, [one for one in known if "." not in one]), "there is no such flag"
    return f"--{name}: {what}; " + (f"did you mean --{meant}?" if meant else "--helpfull lists all")
