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
    "a",
    "dark",
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
    "we",
    "must",
    "learn",
    "driverless",
    "cars",
]


def texts(rng: np.random.Generator, n: int) -> list[str]:
    """With commas, quotes and line ends, as people write them."""
    return [
        " ".join(rng.choice(WORDS, rng.integers(4, 30))) + rng.choice([', "so"', "\r\nline", "."]) + str(i)
        for i in range(n)
    ]


def identities(rng: np.random.Generator, n: int) -> list[str]:
    """Hexadecimal ones, some of which look like numbers."""
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
            "target": [" ".join(rng.choice(WORDS, 3)) for _ in range(n)],
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
    def part(n: int) -> pd.DataFrame:
        dates = np.where(rng.random(n) < 0.2, None, "20120618192155Z")
        return pd.DataFrame(
            {"Insult": np.arange(n) % 2, "Date": dates, "Comment": [f'"{text}"' for text in texts(rng, n)]}
        )

    solutions = part(40).assign(Usage=["PublicTest", "PrivateTest"] * 20)
    return {
        "train.csv": csv(part(60)),
        "test.csv": b"id,Date,Comment\n",
        "test_with_solutions.csv": csv(solutions),
    }


def jigsaw(rng: np.random.Generator) -> dict[str, bytes]:
    kinds = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]

    def part(prefix: str, n: int) -> pd.DataFrame:
        labels = {kind: (np.arange(n) + i) % 3 == 0 for i, kind in enumerate(kinds)}
        ids = [prefix + identity for identity in identities(rng, n)]
        return pd.DataFrame({"id": ids, "comment_text": texts(rng, n), **labels}).astype(
            dict.fromkeys(kinds, int)
        )

    test = part("b", 60)
    labels = test[["id", *kinds]].copy()
    labels.loc[::4, kinds] = -1
    tables = {"train": part("a", 80), "test": test[["id", "comment_text"]], "test_labels": labels}
    return {f"{name}.csv.zip": zipped({f"{name}.csv": csv(table)}) for name, table in tables.items()}


def feedback(rng: np.random.Generator) -> dict[str, bytes]:
    n, ratings = 200, ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]
    frame = pd.DataFrame({"text_id": identities(rng, n), "full_text": texts(rng, n)})
    frame[ratings] = rng.integers(2, 11, (n, 6)) / 2
    return {"train.csv": csv(frame), "test.csv": b"text_id,full_text\n"}


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
}
"""Task name -> files of its archive."""
