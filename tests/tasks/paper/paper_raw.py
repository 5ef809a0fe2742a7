"""Small synthetic raw folders of the paper's tasks: names, columns and nesting as in the true archives."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """A .zip, or else a .tar.gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipped(files) if path.suffix == ".zip" else tarred(files))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def spaceship_titanic(rng: np.random.Generator) -> dict[str, bytes]:
    n = 120
    money = pd.DataFrame(
        rng.exponential(200, (n, 5)).round(),
        columns=["RoomService", "FoodCourt", "ShoppingMall", "Spa", "VRDeck"],
    )
    frame = pd.DataFrame(
        {
            "PassengerId": [f"{i // 2:04d}_{i % 2 + 1:02d}" for i in range(n)],
            "HomePlanet": rng.choice(["Earth", "Mars", "Europa"], n),
            "CryoSleep": rng.choice([True, False], n),
            "Cabin": [f"F/{i}/S" for i in range(n)],
            "Destination": "TRAPPIST-1e",
            "Age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 80, n)),
            "VIP": False,
            **money,
            "Name": [f"Ada Nr{i}" for i in range(n)],
            "Transported": (money["Spa"] + rng.normal(0, 50, n)) < 150,
        }
    )
    return {"train.csv": csv(frame), "test.csv": b"PassengerId\n", "sample_submission.csv": b"PassengerId\n"}


RAW = {"spaceship-titanic": spaceship_titanic}
"""Task name -> files of its archive."""
