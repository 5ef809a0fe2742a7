"""Embeddings of ideas, between which distances are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float


class Embedder(Protocol):
    @property
    def name(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """One row for each text."""
        ...


class TfidfEmbedder:
    """TF-IDF over words and character n-grams, fitted on the texts that it embeds.

    A small substitute for the paper's sentence transformer: it sees shared words and stems, not meaning, and each
    vector depends on the whole list of texts.
    """

    name = "tfidf-stand-in"

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The word and the character half of each row have unit length. Raises ValueError if there are no texts."""
        if not texts:
            raise ValueError("there are no ideas to embed; the idea writer returned an empty list")
        # Imported here: scikit-learn takes over a second to import, and most users of this package never embed.
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True)
        halves = [vectorizer.fit_transform(texts).toarray() for vectorizer in (words, characters)]
        return np.concatenate(halves, axis=1)
