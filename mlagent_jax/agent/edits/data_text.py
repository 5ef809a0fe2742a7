"""Edits on the data axis for texts: what `vectorizer = ...` counts, and how."""

from __future__ import annotations

import re

import libcst as cst

from mlagent_jax.agent.edits import script
from mlagent_jax.agent.edits.data import Apply, data_edit, fill, step
from mlagent_jax.agent.edits.entry import TEXT, Edit, Number, Values
from mlagent_jax.agent.edits.script import Problem
from mlagent_jax.environment.coder import CoderError

_TEXT_COLUMNS = 'test.select_dtypes(exclude="number").columns'
_CLEANING = {
    "digits": r'.str.replace(r"\d+", " ", regex=True)',
    "punctuation": r'.str.replace(r"[^\w\s]", " ", regex=True)',
    "endings": r'.str.replace(r"(ing|ed|ly|s)\b", "", regex=True)',
    "cut": ".str[:{n}]",
}


def _read(module: cst.Module) -> tuple[cst.Call, list[str]]:
    """The main vectorizer, and the sources of those united with it."""
    value = script.assigned(module, "vectorizer")
    if isinstance(value, cst.Call) and value.args and script.callee(value) == "make_union":
        main, *extras = (arg.value for arg in value.args)
    else:
        main, extras = value, []
    if not isinstance(main, cst.Call):
        raise CoderError(
            f"cannot edit 'vectorizer = {script.source_of(value)}'; expected a call such as CountVectorizer()"
        )
    return main, [script.source_of(extra) for extra in extras]


def _write(module: cst.Module, main: cst.Call, extras: list[str]) -> cst.Module:
    source = script.source_of(main)
    if extras:  # counts of letters before sizes of texts
        ordered = sorted(extras, key=lambda extra: extra.startswith("Function"))
        source = f"make_union({', '.join([source, *ordered])})"
    return script.assign(module, "vectorizer", script.expression(source))


def _count(tfidf: bool = False, **keywords: str) -> Apply:
    """Sets keyword arguments of the main vectorizer; `tfidf` makes it weight words."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        main, extras = _read(module)
        if tfidf:
            main = main.with_changes(func=cst.Name("TfidfVectorizer"))
        return _write(
            module, script.with_keywords(main, {n: fill(s, values) for n, s in keywords.items()}), extras
        )

    return apply


def _unite(source: str) -> Apply:
    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        main, extras = _read(module)
        return _write(module, main, list(dict.fromkeys([*extras, source])))

    return apply


def _hash(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
    _, extras = _read(module)
    main = script.expect(script.expression(f"HashingVectorizer(n_features={values['n']:g})"), cst.Call)
    return _write(module, main, extras)


def _clean(slot: str) -> Apply:
    """Passes the texts of both files through a method of `.str`, each at most once, in a fixed order."""

    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        for name in ("train_text", "test_text"):
            source = script.source_of(script.assigned(module, name))
            passes = {}
            for other, method in _CLEANING.items():
                found = re.search(re.escape(method).replace(r"\{n\}", r"\d+"), source)
                if found:
                    passes[other] = found.group()
                    source = source.replace(found.group(), "")
            passes[slot] = _CLEANING[slot].replace("{n}", f"{values.get('n', 0):g}")
            chain = "".join(passes[other] for other in _CLEANING if other in passes)
            module = script.assign(module, name, script.expression(source + chain))
        return module

    return apply


def _columns(source: str) -> Apply:
    def apply(module: cst.Module, problem: Problem, values: Values) -> cst.Module:
        return script.assign(module, "text_columns", script.expression(source))

    return apply


def _edit(
    id: str, wording: str, keywords: str, apply: Apply, unless: tuple[str, ...] = (), **numbers: Number
) -> Edit:
    return data_edit(id, wording, keywords, apply, numbers, TEXT, unless)


EDITS = (
    _edit("tfidf", "Weight words by TF-IDF", r"tf ?idf", _count(tfidf=True), (r"sublinear|log|pair",)),
    _edit(
        "tfidf_pairs",
        "Weight {n} words and pairs of words by TF-IDF",
        r"tf ?idf & pair|bigram",
        _count(tfidf=True, max_features="{n}", ngram_range="(1, 2)", sublinear_tf="True"),
        n=Number((1000, 4000, 16000), 5, 200_000),
    ),
    _edit(
        "sublinear",
        "Weight words by TF-IDF with logarithmic counts",
        r"sublinear|(log.*count)",
        _count(tfidf=True, sublinear_tf="True"),
    ),
    _edit(
        "most_frequent",
        "Count the {n} most frequent words",
        r"frequent & word",
        _count(max_features="{n}"),
        n=Number((30, 300, 1000, 3000, 10000), 5, 200_000),
    ),
    _edit("every_word", "Count every word", r"(every|all).*word", _count(max_features="None")),
    _edit(
        "pairs",
        "Count pairs of words too",
        r"pair|bigram",
        _count(ngram_range="(1, 2)"),
        (r"triple|only|tf ?idf",),
    ),
    _edit("triples", "Count pairs and triples of words too", r"triple|trigram", _count(ngram_range="(1, 3)")),
    _edit(
        "letters",
        "Count groups of {a} to {b} letters instead of words",
        r"letter|character & instead|group|gram",
        _count(analyzer='"char_wb"', ngram_range="({a}, {b})"),
        (r"\btoo\b|also|add|beside",),
        a=Number((1, 2, 3), 1, 8),
        b=Number((4, 5), 1, 10),
    ),
    _edit(
        "letters_too",
        "Count groups of 2 to 4 letters beside the words",
        r"letters|characters|\bgrams & beside|too|also|add",
        _unite('TfidfVectorizer(analyzer="char_wb", max_features=2000, ngram_range=(2, 4))'),
        (r"length|number of",),
    ),
    _edit(
        "sizes",
        "Add the length of each text",
        r"length|number of words",
        _unite("FunctionTransformer(text_sizes)"),
        (r"unit",),
    ),
    _edit(
        "binary", "Note only whether a word occurs", r"whether & occur|appear|present", _count(binary="True")
    ),
    _edit("stop_words", "Leave out English stop words", r"stop ?words?", _count(stop_words='"english"')),
    _edit(
        "rare",
        "Leave out words in fewer than {n} texts",
        r"fewer|rare|less than & word",
        _count(min_df="{n}"),
        (r"\bmore\b",),
        n=Number((2, 5, 20, 100), 1, 10_000),
    ),
    _edit(
        "common",
        "Leave out words in more than {p}% of the texts",
        r"more than|common|too often & word",
        _count(max_df="{p} / 100"),
        p=Number((20, 50, 80), 1, 100),
    ),
    _edit("case", "Keep upper and lower case apart", r"upper|\bcase\b", _count(lowercase="False")),
    _edit(
        "short_words",
        "Count words of a single letter too",
        r"single (letter|character)|one letter",
        _count(token_pattern=r'r"(?u)\b\w+\b"'),
    ),
    _edit(
        "long_words",
        "Count only words of {n} letters or more",
        r"only & letters or more|long words",
        _count(token_pattern='r"(?u)\\b\\w{{{n},}}\\b"'),
        n=Number((3, 4, 6), 2, 20),
    ),
    _edit("hash", "Hash the words into {n} buckets", r"hash", _hash, n=Number((20, 500, 5000), 2, 1_000_000)),
    _edit("dense", "Make the word counts a dense array", r"dense", step("FunctionTransformer(dense)")),
    _edit(
        "cut",
        "Read only the first {n} letters of each text",
        r"first & letter|character",
        _clean("cut"),
        (r"rows",),
        n=Number((20, 100, 500), 1, 100_000),
    ),
    _edit(
        "digits",
        "Drop digits from the texts",
        r"digit|number & drop|remove|strip",
        _clean("digits"),
        (r"rows",),
    ),
    _edit("punctuation", "Drop punctuation from the texts", r"punctuation", _clean("punctuation")),
    _edit("endings", "Cut the endings off words", r"ending|stem|suffix", _clean("endings")),
    _edit(
        "all_columns", "Read all text columns", r"(all|every).*column", _columns(f"{_TEXT_COLUMNS}.tolist()")
    ),
    _edit(
        "first_column",
        "Read only the first text column",
        r"first & column",
        _columns(f"{_TEXT_COLUMNS}[:1].tolist()"),
    ),
)
