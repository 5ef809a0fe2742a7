"""Runs each script of a folder and prints a line of JSON for each: its name and its error, "" for none."""

import contextlib
import io
import json
import runpy
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
for script in sorted(Path(sys.argv[1]).glob("*.py")):
    for submission in Path().glob("submission.*"):
        submission.unlink()
    said, error = io.StringIO(), ""
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"[:500]
    if not error and not (list(Path().glob("submission.*")) and said.getvalue().startswith("validation ")):
        error = "it ended without a submission or a score"
    print(json.dumps([script.name, error]), flush=True)
