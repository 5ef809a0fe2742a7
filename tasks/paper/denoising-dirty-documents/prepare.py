"""Kaggle's denoising-dirty-documents, with MLE-bench's test split.

The competition's submissions are tables of a line per pixel, millions of them; here it is an array of a row per
row of pixels, over which the error is the same. All rows of a page are in the same half of the test rows.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlagent_jax.tasks.competition import KAGGLE_TERMS, check_count, halves, new_test
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive, RawDataError
from mlagent_jax.tasks.table_bytes import to_csv

WIDTH = 540
RAW = KaggleArchive(
    "denoising-dirty-documents",
    wanted=("train", "train_cleaned"),
    nested=("train.zip", "train_cleaned.zip"),
    md5="bc31eea6ff37861abe7d1c9e3411ac1f",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    pages = sorted((raw / "train").glob("*.png"))
    check_count(raw / "train", len(pages), expected=144, of="files")
    train, test = (sorted(part) for part in new_test(pages, share=0.2))
    labels = ids(test)
    labels["split"] = halves([identity.partition("_")[0] for identity in labels["id"]])
    return SplitFiles(
        public={
            "train.csv": to_csv(ids(train)),
            "train_dirty.npy": npy(pixels(train)),
            "train_clean.npy": npy(pixels(cleaned(train))),
            "test.csv": to_csv(ids(test)),
            "test_dirty.npy": npy(pixels(test)),
        },
        labels=labels,
        label_array=pixels(cleaned(test)),
        train_rows=len(ids(train)),
        source="https://www.kaggle.com/competitions/denoising-dirty-documents",
        licence=KAGGLE_TERMS,
    )


def cleaned(pages: list[Path]) -> list[Path]:
    return [page.parent.parent / "train_cleaned" / page.name for page in pages]


def grey(page: Path) -> np.ndarray:
    """From 0 to 1, [rows, WIDTH]."""
    with Image.open(page) as image:
        array = np.asarray(image.convert("L"), dtype=np.float32) / 255
    if array.shape[1] != WIDTH:
        raise RawDataError(
            f"{page} is {array.shape[1]} pixels wide, expected {WIDTH}: another version of the data"
        )
    return array


def pixels(pages: list[Path]) -> np.ndarray:
    return np.concatenate([grey(page) for page in pages])


def ids(pages: list[Path]) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [f"{page.stem}_{row}" for page in pages for row in range(1, len(grey(page)) + 1)]}
    )


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
