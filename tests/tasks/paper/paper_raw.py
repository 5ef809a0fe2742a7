"""Small synthetic raw folders of the paper's tasks, with the names, columns and nesting of the real archives."""

import functools
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import py7zr
from PIL import Image

from mlagent_jax.tasks.task_file import read_task_file

TASKS_DIR = Path(__file__).parents[3] / "tasks"


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


def nomad2018(rng: np.random.Generator) -> dict[str, bytes]:
    n = 60
    share = rng.dirichlet([1, 1, 1], n)
    frame = pd.DataFrame(
        {
            "id": range(1, n + 1),
            "spacegroup": rng.choice([33, 194, 227], n),
            "number_of_total_atoms": rng.choice([40.0, 80.0], n),
            "percent_atom_al": share[:, 0],
            "percent_atom_ga": share[:, 1],
            "percent_atom_in": share[:, 2],
            "lattice_vector_1_ang": rng.normal(10, 1, n),
            "formation_energy_ev_natom": np.abs(share[:, 0] * 0.1 + rng.normal(0, 0.02, n)),
            "bandgap_energy_ev": share[:, 0] * 4 + 1,
        }
    )
    geometries = {f"train/{i}/geometry.xyz": f"# of {i}\n".encode() for i in frame["id"]}
    return {
        "train.csv.zip": zipped({"train.csv": csv(frame)}),
        "train.zip": zipped(geometries),
        "test.zip": zipped({"test/1/geometry.xyz": b""}),
        "test.csv.zip": zipped({"test.csv": b"id\n"}),
    }


def home_data(rng: np.random.Generator) -> dict[str, bytes]:
    n = 60
    names = ["LotArea", "YearBuilt", "1stFlrSF", "2ndFlrSF", "FullBath", "BedroomAbvGr", "TotRmsAbvGrd"]
    frame = pd.DataFrame({"Id": range(1, n + 1), **{name: rng.integers(1, 2000, n) for name in names}})
    frame["Alley"] = np.where(rng.random(n) < 0.9, None, "Pave")
    frame["SalePrice"] = 50_000 + 100 * frame["1stFlrSF"]
    return {"train.csv": csv(frame), "test.csv": b"Id\n", "data_description.txt": b"-"}


def tabular_december(rng: np.random.Generator) -> dict[str, bytes]:
    n = 400
    cover = rng.choice([1, 2, 3], n)
    cover[0] = 5  # a class of one row, as there is
    frame = pd.DataFrame({"Id": range(n), "Elevation": cover * 100 + rng.integers(0, 120, n)})
    for name in ("Wilderness_Area1", "Soil_Type40"):
        frame[name] = rng.integers(0, 2, n)
    frame["Cover_Type"] = cover
    return {"train.csv": csv(frame), "test.csv": b"Id\n"}


WORDS = [
    "night",
    "upon",
    "the",
    "shore",
    "he",
    "thought",
    "of",
    "death",
    "you",
    "fool",
    "and",
    "driverless",
    "cars",
]


def texts(rng: np.random.Generator, n: int, last: str = "NA") -> list[str]:
    """Texts with commas, quotes and line ends, as people write them; pandas reads the last one as missing."""
    written = [
        " ".join(rng.choice(WORDS, rng.integers(4, 30))) + rng.choice([', "so"', "\r\nline", "."]) + str(i)
        for i in range(n)
    ]
    return [*written[:-1], last]


def identities(rng: np.random.Generator, n: int) -> list[str]:
    """Hexadecimal ids, some of which look like numbers."""
    return [
        f"{i:03d}e{number:05d}" if i % 2 else f"{i:03x}d{number:04x}f"
        for i, number in enumerate(rng.integers(0, 9999, n))
    ]


def essays(rng: np.random.Generator) -> dict[str, bytes]:
    n = 120
    frame = pd.DataFrame(
        {"essay_id": identities(rng, n), "full_text": texts(rng, n), "score": rng.integers(1, 7, n)}
    )
    return {
        "train.csv": csv(frame),
        "test.csv": b"essay_id,full_text\n",
        "sample_submission.csv": b"essay_id,score\n",
    }


def patents(rng: np.random.Generator) -> dict[str, bytes]:
    n = 120
    frame = pd.DataFrame(
        {
            "id": identities(rng, n),
            "anchor": rng.choice(["dark night", "the shore"], n),
            "target": [*(" ".join(rng.choice(WORDS, 3)) for _ in range(n - 1)), "null"],
            "context": rng.choice(["A47", "H01"], n),
            "score": rng.choice([0, 0.25, 0.5, 0.75, 1], n),
        }
    )
    return {"train.csv": csv(frame), "test.csv": b"id,anchor,target,context\n"}


def spooky(rng: np.random.Generator) -> dict[str, bytes]:
    n = 90
    frame = pd.DataFrame(
        {
            "id": [f"id{i:05d}" for i in range(n)],
            "text": texts(rng, n),
            "author": rng.choice(["EAP", "HPL", "MWS"], n),
        }
    )
    return {"train.zip": zipped({"train.csv": csv(frame)}), "test.zip": zipped({"test.csv": b"id,text\n"})}


def insults(rng: np.random.Generator) -> dict[str, bytes]:
    def part(n: int, last: str) -> pd.DataFrame:
        dates = np.where(rng.random(n) < 0.2, None, "20120618192155Z")
        comments = [f'"{text}"' for text in texts(rng, n)[:-1]]
        return pd.DataFrame({"Insult": np.arange(n) % 2, "Date": dates, "Comment": [*comments, last]})

    solutions = part(40, "NA").assign(Usage=["PublicTest", "PrivateTest"] * 20)
    return {
        "train.csv": csv(part(60, '"the last"')),
        "test.csv": b"id,Date,Comment\n",
        "test_with_solutions.csv": csv(solutions),
    }


def jigsaw(rng: np.random.Generator) -> dict[str, bytes]:
    kinds = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]

    def part(prefix: str, n: int, last: str) -> pd.DataFrame:
        labels = {kind: (np.arange(n) + i) % 3 == 0 for i, kind in enumerate(kinds)}
        ids = [prefix + identity for identity in identities(rng, n)]
        return pd.DataFrame({"id": ids, "comment_text": texts(rng, n, last), **labels}).astype(
            dict.fromkeys(kinds, int)
        )

    test = part("b", 60, "NA")
    labels = test[["id", *kinds]].copy()
    labels.loc[::4, kinds] = -1
    tables = {"train": part("a", 80, "the last"), "test": test[["id", "comment_text"]], "test_labels": labels}
    return {f"{name}.csv.zip": zipped({f"{name}.csv": csv(table)}) for name, table in tables.items()}


def feedback(rng: np.random.Generator) -> dict[str, bytes]:
    n, ratings = 200, ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]
    frame = pd.DataFrame({"text_id": identities(rng, n), "full_text": texts(rng, n)})
    frame[ratings] = rng.integers(2, 11, (n, 6)) / 2
    return {"train.csv": csv(frame), "test.csv": b"text_id,full_text\n"}


def jpeg(seed: int, width: int = 32, height: int = 32) -> bytes:
    """A different image for each seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG")
    return buffer.getvalue()


def leaves(rng: np.random.Generator) -> dict[str, bytes]:
    species = read_task_file("leaf-classification", TASKS_DIR).target_columns
    n = 7 * len(species)
    frame = pd.DataFrame({"id": rng.permutation(n) + 1, "species": np.tile(species, 7)})
    for name in ("margin1", "shape1", "texture64"):
        frame[name] = np.arange(n) % len(species) + rng.normal(0, 3, n)
    image = jpeg(0, 4, 4)
    return {
        "train.csv.zip": zipped({"train.csv": csv(frame)}),
        "test.csv.zip": zipped({"test.csv": b"id\n"}),
        "images.zip": zipped({f"images/{leaf}.jpg": image for leaf in range(1, n + 3)}),
    }


def cactus(rng: np.random.Generator) -> dict[str, bytes]:
    n = 160
    frame = pd.DataFrame({"id": [f"{i:04x}.jpg" for i in range(n)], "has_cactus": rng.integers(0, 2, n)})
    images = {f"train/{name}": jpeg(i) for i, name in enumerate(frame["id"])}
    return {
        "train.csv": csv(frame),
        "train.zip": zipped(images),
        "test.zip": zipped({"test/a.jpg": b""}),
        "sample_submission.csv": b"id,has_cactus\n",
    }


def dogs_and_cats(rng: np.random.Generator) -> dict[str, bytes]:
    names = [f"{animal}.{i}.jpg" for animal in ("cat", "dog") for i in range(30)]
    images = {f"train/{name}": jpeg(i, 40, 30) for i, name in enumerate(names)}
    return {
        "train.zip": zipped(images),
        "test.zip": zipped({"test/1.jpg": b""}),
        "sample_submission.csv": b"id,label\n",
    }


def apple_leaves(rng: np.random.Generator) -> dict[str, bytes]:
    n, states = 400, ["healthy", "multiple_diseases", "rust", "scab"]
    state = np.arange(n) % 4
    frame = pd.DataFrame({"image_id": [f"Train_{i}" for i in range(n)]})
    for i, name in enumerate(states):
        frame[name] = (state == i).astype(int)
    images = {f"images/Train_{i}.jpg": jpeg(i) for i in range(n)}
    return {
        "train.csv": csv(frame),
        "test.csv": b"image_id\nTest_0\n",
        "images/Test_0.jpg": jpeg(n),
        **images,
    }


def dirty_documents(rng: np.random.Generator) -> dict[str, bytes]:
    folders: dict[str, dict[str, bytes]] = {"train": {}, "train_cleaned": {}}
    for i in range(20):
        shape = (3 + i % 2, 540)
        for folder, low in (("train", 100), ("train_cleaned", 200)):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(low, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
            folders[folder][f"{folder}/{i + 2}.png"] = buffer.getvalue()
    return {f"{folder}.zip": zipped(files) for folder, files in folders.items()} | {
        "test.zip": zipped({"test/1.png": b""})
    }


def icebergs(rng: np.random.Generator) -> dict[str, bytes]:
    samples = [
        {
            "id": f"{i:04x}b",
            "band_1": rng.normal(-20, 5, 75 * 75).round(3).tolist(),
            "band_2": rng.normal(-25, 5, 75 * 75).round(3).tolist(),
            "inc_angle": "na" if i % 7 == 0 else 30 + i / 10,
            "is_iceberg": int(i % 3 == 0),
        }
        for i in range(40)
    ]
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
        archive.writestr(json.dumps(samples), "data/processed/train.json")
    return {"train.json.7z": buffer.getvalue(), "test.json.7z": b"never looked at"}


def whales(rng: np.random.Generator) -> dict[str, bytes]:
    """Thirty whales with one photograph, ten with two, five with six, and new ones."""
    names = [f"w_{i:04x}" for i in [*range(30), *range(30, 40), *range(30, 40), *list(range(40, 45)) * 6]]
    names += ["new_whale"] * 12
    frame = pd.DataFrame({"Image": [f"{i:08x}.jpg" for i in range(len(names))], "Id": rng.permutation(names)})
    images = {f"train/{name}": jpeg(i, 64, 32) for i, name in enumerate(frame["Image"])}
    return {"train.csv": csv(frame), "sample_submission.csv": b"Image,Id\n", "test/1.jpg": b"", **images}


def cifar(rng: np.random.Generator) -> dict[str, bytes]:
    def batch(n: int) -> bytes:
        records = rng.integers(0, 256, (n, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] = np.arange(n) % 10
        return records.tobytes()

    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt"]
    return {f"cifar-10-batches-bin/{name}": batch(40) for name in names}


def arxiv(rng: np.random.Generator) -> dict[str, bytes]:
    n = 200
    tables = {
        "raw/node-label": rng.integers(0, 40, n),
        "raw/node_year": rng.integers(1990, 2021, n),
        "raw/node-feat": rng.normal(size=(n, 128)).round(4),
        "raw/edge": rng.integers(0, n, (500, 2)),
        "split/time/train": np.arange(0, 120),
        "split/time/valid": np.arange(120, 150),
        "split/time/test": rng.permutation(np.arange(150, n)),
    }
    return {
        f"arxiv/{name}.csv.gz": gzip.compress(pd.DataFrame(table).to_csv(index=False, header=False).encode())
        for name, table in tables.items()
    }


RAW = {
    "spaceship-titanic": spaceship_titanic,
    "nomad2018-predict-transparent-conductors": nomad2018,
    "home-data-for-ml-course": home_data,
    "tabular-playground-series-dec-2021": tabular_december,
    "learning-agency-lab-automated-essay-scoring-2": essays,
    "us-patent-phrase-to-phrase-matching": patents,
    "spooky-author-identification": spooky,
    "detecting-insults-in-social-commentary": insults,
    "jigsaw-toxic-comment-classification-challenge": jigsaw,
    "feedback-prize-english-language-learning": feedback,
    "leaf-classification": leaves,
    "aerial-cactus-identification": cactus,
    "dogs-vs-cats-redux-kernels-edition": dogs_and_cats,
    "plant-pathology-2020-fgvc7": apple_leaves,
    "denoising-dirty-documents": dirty_documents,
    "statoil-iceberg-classifier-challenge": icebergs,
    "whale-categorization-playground": whales,
    "cifar-10": cifar,
    "ogbn-arxiv": arxiv,
}
"""Task name -> files of its archive."""


@functools.cache
def raw_files(name: str) -> dict[str, bytes]:
    return RAW[name](np.random.default_rng(0))
