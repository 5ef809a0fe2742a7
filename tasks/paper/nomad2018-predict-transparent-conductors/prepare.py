"""Kaggle's nomad2018-predict-transparent-conductors, with MLE-bench's test split and its new ids."""

from pathlib import Path

from mlagent_jax.tasks.competition import competition_files, new_test, read_table
from mlagent_jax.tasks.labelled import SplitFiles
from mlagent_jax.tasks.preparation import RawFiles
from mlagent_jax.tasks.raw_download import KaggleArchive

TARGETS = ["formation_energy_ev_natom", "bandgap_energy_ev"]
RAW = KaggleArchive(
    "nomad2018-predict-transparent-conductors",
    wanted=("train.csv", "train"),
    nested=("train.csv.zip", "train.zip"),
    md5="faf192f27aa208d8da5ab99d41bd9e39",
)


def prepare(files: RawFiles) -> SplitFiles:
    raw = RAW.unpack(files)
    rows = read_table(raw / "train.csv", ("id", "spacegroup", "percent_atom_al", *TARGETS), rows=2400)
    geometries: dict[str, bytes | Path] = {}
    parts = dict(zip(("train", "test"), new_test(rows, share=0.1), strict=True))
    for name, part in parts.items():
        for new_id, old_id in enumerate(part["id"], start=1):
            geometries[f"{name}/{new_id}/geometry.xyz"] = raw / "train" / str(old_id) / "geometry.xyz"
        parts[name] = part.assign(id=range(1, len(part) + 1))
    return competition_files(
        parts["train"],
        parts["test"].drop(columns=TARGETS),
        parts["test"][["id", *TARGETS]],
        source="https://www.kaggle.com/competitions/nomad2018-predict-transparent-conductors",
        files=geometries,
    )
