"""Emoji of 32x32 pixels (Noto Color Emoji) with their categories, as emoji-datasource-google ships them."""

import io
import json

import numpy as np
import pandas as pd
from PIL import Image

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

SIZE, BORDER = 32, 1  # of one emoji on the sheet


def prepare(files: RawFiles) -> LabelledRows:
    sheet, index = files.from_npm(
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        ["package/img/google/sheets/32.png", "package/emoji.json"],
    )
    listed = [one for one in json.loads(index) if one["has_img_google"] and one["category"] != "Component"]
    picture = Image.open(io.BytesIO(sheet)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    pixels = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
    step = SIZE + 2 * BORDER
    corners = [(one["sheet_y"] * step + BORDER, one["sheet_x"] * step + BORDER) for one in listed]
    return LabelledRows(
        # The list is in order of category. The variants of skin are not in it.
        rows=pd.DataFrame({"category": [one["category"] for one in listed]}),
        arrays={"images": np.stack([pixels[y : y + SIZE, x : x + SIZE] for y, x in corners])},
        train_rows=900,
        source="Noto Color Emoji with Unicode's categories, as in emoji-datasource-google",
        licence="Apache-2.0 (images); MIT (emoji-datasource)",
    )
