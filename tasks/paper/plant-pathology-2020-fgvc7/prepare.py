"""Kaggle's plant-pathology-2020-fgvc7, with MLE-bench's test split and its new image names."""

from pathlib import Path

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

STATES = ["healthy", "multiple_diseases", "rust", "scab"]
RAW = KaggleArchive(
    "plant-pathology-2020-fgvc7", wanted=("train.csv", "images"), md5="741d4c394bd458d56b8ebf905bb3918a"
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    rows = read_table(raw / "train.csv", ("image_id", *STATES), rows=1821)
    images: dict[str, bytes | Path] = {}
    parts = dict(zip(("Train", "Test"), new_test(rows, share=0.1), strict=True))
    for name, part in parts.items():
        new_ids = [f"{name}_{number}" for number in range(len(part))]
        for new_id, old_id in zip(new_ids, part["image_id"], strict=True):
            images[f"images/{new_id}.jpg"] = raw / "images" / f"{old_id}.jpg"
        parts[name] = part.assign(image_id=new_ids)
    return competition_files(
        parts["Train"],
        parts["Test"][["image_id"]],
        parts["Test"][["image_id", *STATES]],
        source="https://www.kaggle.com/competitions/plant-pathology-2020-fgvc7",
        files=images,
        answers_md5="8835c3fd71013bd15ea81566d4f85d7b",
    )
