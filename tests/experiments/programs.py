"""Runs many short commands of `python -m experiments...` as processes of their own that share one start of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import importlib, json, os, runpy, sys, tempfile, traceback
import experiments.experiment, experiments.planning, experiments.config_file  # the slow imports, once
commands, only_parse = json.load(sys.stdin)
for argv in commands:
    out = tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.argv = argv
        code = 0
        try:
            if only_parse:
                from absl import flags
                from experiments.command_line import parse
                importlib.import_module(argv[0])
                for name in list(flags.FLAGS):
                    flags.FLAGS[name].validators.clear()  # a shown command may leave out what is clear
                parse(argv, words=True)
            else:
                runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    out.seek(0)
    print(json.dumps([os.waitstatus_to_exitcode(status), out.read().decode()]), flush=True)
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


def run_programs(commands: Sequence[Sequence[str]], only_parse: bool = False) -> list[Ended]:
    """Each command is a module's name and its arguments. only_parse: read the command line, and do nothing."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([[list(command) for command in commands], only_parse]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]
