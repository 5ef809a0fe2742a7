"""Kaggle's statoil-iceberg-classifier-challenge, with MLE-bench's test split; the images as arrays, not as JSON."""

import io
import json

import numpy as np
import pandas as pd

from mlagent_jax.tasks.competition import check_count, competition_files, new_test
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "statoil-iceberg-classifier-challenge",
    wanted=("data/processed/train.json",),
    nested=("train.json.7z",),
    md5="20847b5ba9d0165bac850eb10d8fc234",
)


def prepare(files: RawFiles) -> SplitFiles:
    path = RAW.unpack(files) / "data" / "processed" / "train.json"
    samples = json.loads(path.read_bytes())
    check_count(path, len(samples), expected=1604)
    train, test = new_test(samples, share=0.2)
    return competition_files(
        frame(train),
        frame(test).drop(columns="is_iceberg"),
        frame(test)[["id", "is_iceberg"]],
        source="https://www.kaggle.com/competitions/statoil-iceberg-classifier-challenge",
        files={"train_bands.npy": bands(train), "test_bands.npy": bands(test)},
        answers_md5="0b3eba8691a3cc72dcb7998baa672446",
    )


def frame(samples: list[dict]) -> pd.DataFrame:
    """An angle that is missing is "na" in the raw data."""
    rows = pd.DataFrame(
        [{name: sample[name] for name in ("id", "inc_angle", "is_iceberg")} for sample in samples]
    )
    return rows.assign(inc_angle=pd.to_numeric(rows["inc_angle"], errors="coerce"))


def bands(samples: list[dict]) -> bytes:
    images = [[sample["band_1"], sample["band_2"]] for sample in samples]
    buffer = io.BytesIO()
    np.save(buffer, np.array(images, dtype=np.float32).reshape(len(samples), 2, 75, 75))
    return buffer.getvalue()
