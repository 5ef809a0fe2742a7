"""Runs many short commands of `python -m experiments...` as processes of their own that share one start of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import contextlib, gc, importlib, io, json, os, runpy, sys, tempfile, traceback
import experiments.experiment, experiments.planning.plans, experiments.cli.config_flags  # the slow imports, once
import mlagent_jax.tasks.user_table.new_task, mlagent_jax.tasks.checks, mlagent_jax.tasks.listing

def run(argv):
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    sys.argv = argv
    code = 0
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def read(module, command_lines):
    from absl import flags
    from experiments.cli.program import parse
    importlib.import_module(module)
    for name in list(flags.FLAGS):
        flags.FLAGS[name].validators.clear()  # a shown command may leave out what is clear
    for argv in command_lines:
        code = 0
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                parse(argv, positional=True)
            except SystemExit as ended:
                code = ended.code
        print(json.dumps([code, said.getvalue()]), flush=True)
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
    os._exit(0)

what, work = json.load(sys.stdin)
gc.collect()
gc.freeze()  # what is shared with the children is left alone there
for each in work:
    out = tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        run(each) if what == "run" else read(*each)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    out.seek(0)
    if what == "run":
        print(json.dumps([code, out.read().decode()]), flush=True)
    elif code:
        sys.exit(f"{each[0]} ended with {code}")
"""


@dataclass(frozen=True)
class Ended:
    code: int
    output: str

    @property
    def error(self) -> str:
        """The one sentence, and those below it."""
        assert "Traceback" not in self.output, self.output
        _, found, text = self.output.partition("error: ")
        assert found, self.output
        return text


def run_programs(commands: Sequence[Sequence[str]]) -> list[Ended]:
    """Each command is a module's name and its arguments."""
    return _in_one_start("run", [list(command) for command in commands])


def read_command_lines(commands: Sequence[Sequence[str]]) -> list[Ended]:
    """Has each command's line read by its program, without a check of what is left out, and nothing done."""
    by_module: dict[str, list[int]] = {}
    for number, (module, *_) in enumerate(commands):
        by_module.setdefault(module, []).append(number)
    work = [[module, [list(commands[number]) for number in each]] for module, each in by_module.items()]
    ended = dict(
        zip((n for each in by_module.values() for n in each), _in_one_start("read", work), strict=True)
    )
    return [ended[number] for number in range(len(commands))]


def _in_one_start(what: str, work: list[list[Any]]) -> list[Ended]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([what, work]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]
