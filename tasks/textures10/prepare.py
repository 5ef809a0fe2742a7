"""Small patches of ten pictures, as scikit-image ships them: photographs of stone, grass, fur, cells."""

import hashlib
import io

import numpy as np
import pandas as pd
from PIL import Image

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

PICTURES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "ihc", "moon", "cell")
SIZE, STEP = 20, 24  # patches do not touch, so that none goes on in another
MOST_OF_ONE = 400


def prepare(files: RawFiles) -> LabelledRows:
    patches, names = [], []
    for name in PICTURES:
        data = files.from_wheel(
            "scikit-image",
            "0.26.0",
            "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
            f"skimage/data/{name}.png",
            "cp311-cp311-manylinux_2_28_x86_64",
        )
        found = list(_patches(np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float), name))
        patches += found[:MOST_OF_ONE]
        names += [name] * len(found[:MOST_OF_ONE])
    return LabelledRows(
        rows=pd.DataFrame({"picture": names}),
        arrays={"images": np.stack(patches)},
        train_rows=1400,
        source="test pictures of scikit-image, in grey",
        licence="BSD-3-Clause (scikit-image); pictures CC0 or in the public domain, as its README lists them",
    )


def _patches(picture: np.ndarray, name: str):
    """Turned at random and of one mean and contrast, so that brightness says nothing; flat ones are left out."""
    for y in range(0, picture.shape[0] - SIZE + 1, STEP):
        for x in range(0, picture.shape[1] - SIZE + 1, STEP):
            patch = picture[y : y + SIZE, x : x + SIZE]
            if patch.std() < 4:
                continue
            turn = hashlib.sha256(f"{name} {y} {x}".encode()).digest()[0]
            patch = np.rot90(patch if turn & 4 else patch.T, turn & 3)
            scaled = 128 + 45 * (patch - patch.mean()) / patch.std()
            yield np.clip(np.round(scaled), 0, 255).astype(np.uint8)
