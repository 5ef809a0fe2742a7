"""CIFAR-10 (Krizhevsky 2009) in its binary form, which needs no unpickling; with its own test set."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd

from mlagent_jax.tasks.competition import check_count, competition_files
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import RawDataError, UrlArchive

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # a label, and the channels one after the other
RAW = UrlArchive(
    "cifar-10",
    wanted=("cifar-10-batches-bin",),
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files) / "cifar-10-batches-bin"
    train, train_images = read([raw / f"data_batch_{number}.bin" for number in range(1, 6)])
    test, test_images = read([raw / "test_batch.bin"])
    check_count("the training batches", len(train), expected=50_000)
    check_count("test_batch.bin", len(test), expected=10_000)
    prepared = competition_files(
        train,
        test[["id"]],
        test,
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        files={"train_images.npy": train_images, "test_images.npy": test_images},
        classes=CLASSES,
    )
    return dataclasses.replace(
        prepared, licence="none stated by its authors, who ask to cite Krizhevsky (2009)"
    )


def read(batches: list[Path]) -> tuple[pd.DataFrame, bytes]:
    """Ids and labels, and the images as an .npy file."""
    data = b"".join(batch.read_bytes() for batch in batches)
    if not data or len(data) % RECORD or max(data[::RECORD]) >= len(CLASSES):
        raise RawDataError(
            f"{batches[0]} is not in CIFAR-10's binary form; remove its folder to have it unpacked again"
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, RECORD)
    buffer = io.BytesIO()
    np.save(buffer, records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy())
    labels = [CLASSES[label] for label in records[:, 0]]
    return pd.DataFrame({"id": range(len(records)), "label": labels}), buffer.getvalue()
