"""Kaggle's dogs-vs-cats-redux-kernels-edition, with MLE-bench's test split and its new file names."""

from pathlib import Path

import pandas as pd

from mlagent_jax.tasks.competition import check_count, competition_files, new_test
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

RAW = KaggleArchive(
    "dogs-vs-cats-redux-kernels-edition",
    wanted=("train",),
    nested=("train.zip",),
    md5="73dbbb43cbd91b769244408ff2a4fd6d",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    photographs = sorted((raw / "train").glob("*.jpg"))
    check_count(raw / "train", len(photographs), expected=25_000, of="files")
    train, test = new_test(photographs, share=0.1)
    images: dict[str, bytes | Path] = {}
    labels = []
    for animal in ("cat", "dog"):  # numbered anew, so that gaps don't tell of the test set
        for number, path in enumerate(path for path in train if path.name.startswith(animal)):
            images[f"train/{animal}.{number}.jpg"] = path
            labels.append({"image": f"{animal}.{number}.jpg", "label": int(animal == "dog")})
    images |= {f"test/{number}.jpg": path for number, path in enumerate(test, start=1)}
    ids = pd.DataFrame({"id": range(1, len(test) + 1)})
    return competition_files(
        pd.DataFrame(labels),
        ids,
        ids.assign(label=[int(path.name.startswith("dog")) for path in test]),
        source="https://www.kaggle.com/competitions/dogs-vs-cats-redux-kernels-edition",
        files=images,
        answers_md5="98f293fd3f37f967c17aa9263e866c30",
    )
