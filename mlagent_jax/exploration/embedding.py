"""Embedding idea lines, so that their distances can be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Embedder(Protocol):
    @property
    def name(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One row per text: (n, d)."""
        ...


class TfidfEmbedder:
    """TF-IDF over words and character n-grams, fitted on the very texts it embeds.

    A small stand-in for the paper's sentence transformer: it sees shared words and stems, not meaning, and
    its vectors depend on the whole list it is given.
    """

    name = "tfidf-stand-in"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) with unit word and character halves. Raises ValueError if there are no texts."""
        if not texts:
            raise ValueError("there are no ideas to embed; the idea writer returned an empty list")
        # Imported here: scikit-learn takes over a second, and most users of this package never embed.
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True)
        halves = [vectorizer.fit_transform(texts).toarray() for vectorizer in (words, characters)]
        return np.concatenate(halves, axis=1)
