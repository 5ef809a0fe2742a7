"""Artists of last.fm, linked where listeners share them, as the Orange network add-on ships them."""

import io
import re

import numpy as np
import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

GENRES = 12


def prepare(files: RawFiles) -> LabelledRows:
    net, table = (
        files.from_wheel(
            "orange3-network",
            "1.10.2",
            "e1adb2f759ef28e309807227254710d7ebf54a6264d0a02a315c98eccbc96987",
            f"orangecontrib/network/networks/lastfm.{suffix}",
            "cp311-cp311-manylinux_2_28_x86_64",
        )
        for suffix in ("net", "tab")
    )
    artists = pd.read_csv(io.BytesIO(table), sep="\t", skiprows=[1, 2])
    edges = re.findall(r"^(\d+) (\d+) [\d.]+\s*$", net.decode().partition("*edges")[2], flags=re.M)
    # Spellings of one genre; then those beyond the most frequent are one class of their own.
    genre = artists["best tag"].str.strip().str.lower().str.replace(r"[\s-]+", "_", regex=True)
    frequent = genre.value_counts().index[:GENRES]
    numbers = ["album count", "listeners", "plays", "first album", "last album"]
    rows = artists[numbers].rename(columns=lambda name: name.replace(" ", "_"))
    return LabelledRows(
        # The artist's name says the genre to whoever knows it, and nothing to a model of this graph.
        rows=rows.assign(genre=genre.where(genre.isin(frequent), "other")),
        links={"edges": np.array(edges, dtype=int) - 1},
        train_rows=520,
        source="last.fm artists and their shared listeners, as in orange3-network",
        licence="GPL-3.0 (orange3-network); of the data themselves none is stated there",
    )
