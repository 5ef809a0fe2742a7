"""ogbn-arxiv of the Open Graph Benchmark, with its official split by year."""

import dataclasses
import io

import numpy as np
import pandas as pd

from mlagent_jax.tasks.competition import check_count, competition_files
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import RawDataError, UrlArchive
from mlagent_jax.tasks.table_bytes import to_csv

# No hash of the archive is published; the numbers of papers and of citations are checked.
RAW = UrlArchive(
    "ogbn-arxiv",
    wanted=("arxiv/raw", "arxiv/split/time"),
    url="https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
)


def prepare(files: RawFiles) -> SplitFiles:
    root = RAW.unpack(files) / "arxiv"

    def read(name: str, dtype: type = int) -> np.ndarray:
        """[n, columns]; the files have no header."""
        try:
            return pd.read_csv(root / f"{name}.csv.gz", header=None, dtype=dtype).to_numpy()
        except (OSError, EOFError, ValueError) as error:
            raise RawDataError(f"cannot read {name}.csv.gz in {root}: {error}") from error

    labels, years = read("raw/node-label")[:, 0], read("raw/node_year")[:, 0]
    features, edges = read("raw/node-feat", np.float32), read("raw/edge")
    check_count("node-label.csv.gz", len(labels), expected=169_343)
    check_count("node-feat.csv.gz", len(features), expected=169_343)
    check_count("edge.csv.gz", len(edges), expected=1_166_243)
    papers = pd.DataFrame({"id": range(len(labels)), "year": years, "label": labels})
    train, valid, test = (papers.loc[read(f"split/time/{part}")[:, 0]] for part in ("train", "valid", "test"))
    check_count("test.csv.gz", len(test), expected=48_603)
    prepared = competition_files(
        train,
        test[["id", "year"]],
        test[["id", "label"]],
        source="https://ogb.stanford.edu/docs/nodeprop/#ogbn-arxiv",
        files={"valid.csv": to_csv(valid), "features.npy": npy(features), "edges.npy": npy(edges)},
        classes=[str(label) for label in range(40)],
    )
    return dataclasses.replace(prepared, licence="ODC-BY")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
