"""Edits on the data axis for small grey images, flattened to rows of pixels."""

from __future__ import annotations

from mlagent_jax.agent.edits.data import Apply, data_edit, fit_on, step
from mlagent_jax.agent.edits.entry import IMAGE, Edit, Number


def _edit(
    id: str, wording: str, keywords: str, apply: Apply, unless: tuple[str, ...] = (), **numbers: Number
) -> Edit:
    return data_edit(id, wording, keywords, apply, numbers, IMAGE, unless)


EDITS = (
    _edit("deskew", "Deskew the images", r"deskew|slant|upright", step("FunctionTransformer(deskewed)")),
    _edit(
        "blur",
        "Blur the images with sigma {s}",
        r"blur|smooth & image|pixel|sigma",
        step('FunctionTransformer(blurred, kw_args={{"sigma": {s}}})'),
        s=Number((0.5, 1, 3), 0.1, 10, whole=False),
    ),
    _edit(
        "crop",
        "Crop {n} pixels off each border",
        r"crop|border|margin",
        step('FunctionTransformer(cropped, kw_args={{"border": {n}}})'),
        n=Number((1, 2, 3), 1, 13),
    ),
    _edit(
        "halve",
        "Halve the resolution of the images",
        r"(halve|half|lower|down ?sampl).*(resolution|image)|down ?sampl",
        step("FunctionTransformer(halved)"),
    ),
    _edit(
        "binarize",
        "Turn pixels above {t}% into 1 and the rest into 0",
        r"binar|black and white|threshold|above.*rest",
        step("Binarizer(threshold={t} / 100)"),
        t=Number((10, 30, 50, 90), 1, 99),
    ),
    _edit(
        "contrast",
        "Normalize the contrast of each image",
        r"contrast|brightness",
        step("FunctionTransformer(contrasted)"),
    ),
    _edit(
        "gradients",
        "Add histograms of gradients in cells, {n} a side",
        r"gradient & histogram|\bhog\b|cells",
        step('FunctionTransformer(with_gradients, kw_args={{"cells": {n}}})'),
        n=Number((2, 4), 1, 14),
    ),
    _edit(
        "profiles",
        "Add the sums of each row and column of pixels",
        r"sum|profile & column|profile",
        step("FunctionTransformer(with_profiles)"),
    ),
    _edit(
        "shift", "Add copies of the images shifted by one pixel", r"shift|moved|translat", fit_on("shifted")
    ),
    _edit("mirror", "Add mirrored copies of the images", r"mirror|flip", fit_on("mirrored")),
    _edit("noise", "Add noisy copies of the images", r"nois", fit_on("noisy")),
)
