"""The feedback texts that agents get. They are terse, since the context of a small model is short.

What matters most comes last. Each kind of failure starts with its own prefix, by which logs can be sorted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlagent_jax.sandbox.interface import Limits, Result, Status
from mlagent_jax.sandbox.sandbox_worker.record import LeftOut

BAD_ACTION = "Invalid action:"  # no such tool
BAD_RESPONSE = "Invalid response:"  # not in the response format
BAD_INPUT = "ActionInputParsingError:"
BAD_CALL = "EnvError:"  # the tool cannot do this here
CODER_FAILED = "CoderError:"
SCRIPT_FAILED = "ScriptError:"
BAD_SUBMISSION = "SubmissionError:"
OUT_OF_RESOURCES = "ResourceLimit:"
NOT_KEPT = "Files not kept:"

MAX_DIFF_CHARS = 4_000
MAX_OUTPUT_CHARS = 4_000

# Lines in which a traceback underlines part of the line above: many tokens for little information.
_CARETS = re.compile(r"^ +[~^]+ *\n", re.MULTILINE)


def clip(text: str, limit: int, head: float = 0.5) -> str:
    """Shortens text to `limit` characters by cutting out its middle. head: the share that is kept before the cut."""
    if len(text) <= limit:
        return text
    mark = " ... "
    if limit <= len(mark):
        return text[len(text) - limit :]
    kept = limit - len(mark)
    first = int(kept * head)
    return text[:first] + mark + text[len(text) - (kept - first) :]


def clip_lines(text: str, limit: int) -> str:
    """Shortens text to `limit` characters by whole lines: keeps the first, and as many of the last as fit."""
    if len(text) <= limit:
        return text
    first, *rest = text.split("\n")
    left = limit - len(first) - len("\n...")
    kept: list[str] = []
    while rest and left > len(rest[-1]):
        left -= len(rest[-1]) + 1
        kept.insert(0, rest.pop())
    return "\n".join([first, "...", *kept]) if kept else clip(text, limit, head=0.3)


def number(score: float) -> str:
    """A score as agents see it: four decimals, or six significant digits if it is large or tiny."""
    return f"{score:.4f}" if score == 0 or 1e-2 <= abs(score) < 1e3 else f"{score:.6g}"


def comparison(metric: str, score: float, before: float, higher_is_better: bool) -> str:
    """Compares two scores, as in "Public rmsle 0.1523, better than 0.2011."."""
    better = (score > before) == higher_is_better
    word = "same as" if score == before else "better than" if better else "worse than"
    return f"Public {metric} {number(score)}, {word} {number(before)}."


def saved(path: str, diff: str) -> str:
    """Says that an edited script was saved, and what changed."""
    return join(f"Saved to {path}.", _shown(diff))


def without_diff(text: str, diff: str) -> str:
    """The feedback of an edit without its diff, for agents with a short context, who know what they asked for."""
    return text.replace(f"\n{_shown(diff)}", "", 1) if diff else text


def execution(result: Result, limits: Limits) -> str:
    """What a script printed, shortened in the middle. For a failure, its kind comes first and the error last."""
    output = clip(_CARETS.sub("", result.output).strip(), MAX_OUTPUT_CHARS)
    output = join(files_not_kept(result.left_out, limits), output)
    if result.status is Status.OK:
        return output
    if result.status.is_corner_case:
        return join(output, f"{OUT_OF_RESOURCES} {_exhausted(result.status, limits)}.")
    cause = f"signal {result.signal}" if result.signal else f"exit code {result.exit_code}"
    return join(f"{SCRIPT_FAILED} {cause}.", output)


def files_not_kept(counts: Mapping[str, int], limits: Limits) -> str:
    """Counts the files that a script wrote and later steps will not find, by reason; "" if there are none."""
    kept_mb = min(limits.kept_mb, limits.workspace_mb / 4)
    reasons = {
        LeftOut.NAME: "with names that cannot be used",
        LeftOut.SPECIAL: "that are links or special files",
        LeftOut.OUTPUT: "that is no file where the submission belongs",
        LeftOut.LARGE: f"beyond {kept_mb:g} MB",
        LeftOut.MANY: f"beyond {min(limits.kept_files, limits.workspace_files // 2)} files and folders",
    }
    found = [f"{counts[reason]} {words}" for reason, words in reasons.items() if counts.get(reason)]
    return f"{NOT_KEPT} {', '.join(found)}." if found else ""


def invalid_submission(reason: str) -> str:
    """Says why a submission was not accepted."""
    return f"{BAD_SUBMISSION} {reason.rstrip('.')}."


def join(*parts: str) -> str:
    """The parts that are not empty, each on its own lines."""
    return "\n".join(part for part in parts if part)


def _shown(diff: str) -> str:
    return clip(diff.rstrip(), MAX_DIFF_CHARS)


def _exhausted(status: Status, limits: Limits) -> str:
    if status is Status.TIMEOUT:
        return f"stopped after {min(limits.wall_seconds, limits.cpu_seconds):g} s"
    if status is Status.OOM:
        return f"out of memory, {limits.memory_mb} MB are allowed"
    if status is Status.PIDS:
        return f"too many processes, {limits.processes} are allowed"
    if status is Status.DISK:
        return f"workspace full, {limits.workspace_mb} MB are allowed"
    return (
        f"too many or too large files left, {limits.workspace_files} of {limits.workspace_mb} MB are allowed"
    )
