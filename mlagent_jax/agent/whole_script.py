"""Finds the complete edited script in a coder's answer, and refuses snippets and truncated scripts.

The messages of UnusableAnswerError are shown to the coder and to agents.
"""

from __future__ import annotations

import ast
import builtins
import re
import threading
import warnings

from mlagent_jax.agent import answers

# CPython 3.11 counts the recursion depth of `ast.parse` for all threads together, and fails if two of them parse at
# once (SystemError: AST constructor recursion depth mismatch).
PARSE_LOCK = threading.Lock()

_OTHER_LANGUAGES = (
    *(
        "bash",
        "sh",
        "shell",
        "zsh",
        "console",
        "cmd",
        "powershell",
        "diff",
        "patch",
        "json",
        "yaml",
        "toml",
        "ini",
    ),
    *("output", "csv", "html", "sql", "r", "markdown", "md"),
)
_ELISION = re.compile(
    r"#\s*(?:\.\.\.|…)|#.*\b(?:rest|remainder) of (?:the|your|this) (?:code|script|file)\b"
    r"|#.*\b(?:same as before|(?:existing|previous|original|other|remaining) (?:code|script|lines|imports|steps)"
    r" (?:here|stays?|remains?|unchanged|goes|continues)|code (?:remains|stays|is) (?:the same|unchanged))",
    re.IGNORECASE,
)
_MAX_FENCES = 16  # that are tried, starting with the last
_MARKS = {
    "submission": "writes the submission",
    "data": "reads the data",
}  # words in the strings of a script, and what they show
_MODULE_NAMES = {"__file__", "__name__", "__doc__", "__builtins__", "__spec__", "__annotations__"}


class UnusableAnswerError(Exception):
    """Says what is wrong with an answer. The message completes "the answer can't be used: ..."."""


def find_script(answer: str, original: str) -> str:
    """The last code block of the answer that can replace the script `original`. Raises UnusableAnswerError."""
    text = answers.without_thinking(answer)
    found = [fence for fence in answers.fences(text) if fence.tag not in _OTHER_LANGUAGES]
    if found and not found[-1].ends:
        raise UnusableAnswerError("its last fence is never closed")
    problem = ""
    for fence in reversed(found[-_MAX_FENCES:]):
        for end in fence.ends:  # a fence inside a docstring may end the block too early
            script = answers.fence_content(text, fence, end)
            fault = why_not_whole(script, original)
            if not fault:
                return script
            problem = problem or fault
    if not found and not why_not_whole(f"{text}\n", original):
        return f"{text}\n"
    raise UnusableAnswerError(problem or "it has no ```python fence")


def why_not_whole(script: str, original: str) -> str:
    """Why `script` cannot replace `original`, or "" if it can."""
    if not script.strip():
        return "its fence is empty"
    tree, reason = _parsed(script)
    if tree is None:
        return f"its script is not valid Python ({reason})"
    if (elided := _ELISION.search(script)) and elided[0] not in original:
        return f"it leaves out a part of the script ({elided[0]!r})"
    before = _parsed(original)[0]
    marked = [mark for mark in _MARKS if _mentions(before, original, mark)]
    for mark in marked:
        if not _mentions(tree, script, mark):
            return f"it is only a part of the script: nothing in it {_MARKS[mark]}"
    unknown = _undefined(tree) - (_undefined(before) if before is not None else set())
    if unknown:
        return f"it is only a part of the script: it does not define {', '.join(sorted(unknown)[:3])}"
    if before is not None and not marked and 2 * len(script.split("\n")) < len(original.split("\n")):
        lost = _definitions(before) - _definitions(tree)
        if lost:
            return f"it is only a part of the script: it lacks {', '.join(sorted(lost)[:3])}"
    return ""


def _parsed(script: str) -> tuple[ast.Module | None, str]:
    try:
        with PARSE_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(script), ""
    except SyntaxError as error:
        return None, f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return None, str(error) or type(error).__name__


def _mentions(tree: ast.Module | None, script: str, mark: str) -> bool:
    """Whether a string in the script contains the word; if the script does not parse, whether its text does."""
    if tree is None:
        return mark in script
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and mark in node.value
        for statement in tree.body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))  # a docstring
        for node in ast.walk(statement)
    )


def _definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def _undefined(tree: ast.Module) -> set[str]:
    """The names that are read but never bound; empty if a star import may bind them."""
    bound, read = set(dir(builtins)) | _MODULE_NAMES, set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.alias(name="*"):
                return set()
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition(".")[0])
    return read - bound
