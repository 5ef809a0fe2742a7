"""Functions that scripts bring along as text. Real code, so that it is linted and tested."""

import numpy as np
from scipy.ndimage import (
    affine_transform,
    gaussian_filter,
    maximum_filter,
    median_filter,
    minimum_filter,
    uniform_filter,
)
from scipy.sparse import coo_array
from scipy.sparse.linalg import eigsh


def without_outliers(X, y, share):
    """Rows whose target is not among the smallest or the largest `share`."""
    low, high = np.quantile(y, [share, 1 - share])
    keep = np.asarray((y >= low) & (y <= high))
    return X[keep], y[keep]


def logged(X):
    return np.sign(X) * np.log1p(np.abs(X))


def without_markup(texts):
    return texts.str.replace(r"<[^>]*>|https?://\S+|&\w+;", " ", regex=True)


def without_digits(texts):
    return texts.str.replace(r"\d+", "0", regex=True)


def letters(a, b):
    """Share of letters in common, lengths."""
    sets = [(set(x.lower()), set(y.lower())) for x, y in zip(a, b, strict=True)]
    shared = [len(x & y) / max(len(x | y), 1) for x, y in sets]
    return np.stack([shared, a.str.len() + b.str.len(), (a.str.len() - b.str.len()).abs()], axis=1)


def groups(column):
    """1 for the group that comes first in the alphabet."""
    return (column == column.min()).to_numpy(float)[:, None]


def unit(vectors):
    vectors = vectors.astype(float)
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)


def cosine(a, b):
    return (a * b).sum(axis=1, keepdims=True)


def products(a, b):
    return a * b


def differences(a, b):
    return np.abs(a - b)


def distances(a, b):
    """Sum of differences, their largest and Euclid's."""
    gap = np.abs(a - b)
    return np.stack([gap.sum(axis=1), gap.max(axis=1), np.linalg.norm(gap, axis=1)], axis=1)


def deskewed(images):
    """Each image sheared so that its main axis stands upright."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    y, x = np.mgrid[: grey.shape[1], : grey.shape[2]]
    upright = []
    for image, one in zip(images, grey, strict=True):
        mass = one.sum() + 1e-9
        row, column = (y * one).sum() / mass, (x * one).sum() / mass
        spread = ((y - row) ** 2 * one).sum() / mass + 1e-9
        slant = ((y - row) * (x - column) * one).sum() / mass / spread
        shear = np.eye(image.ndim)
        shear[1, 0] = slant
        upright.append(affine_transform(image, shear, [0, -slant * row, 0][: image.ndim], order=1))
    return np.array(upright)


def contrasted(images):
    """Each image at zero mean and unit variance."""
    axes = tuple(range(1, images.ndim))
    return (images - images.mean(axes, keepdims=True)) / (images.std(axes, keepdims=True) + 1e-9)


def blurred(images, sigma):
    return gaussian_filter(images, (0, sigma, sigma, 0)[: images.ndim])


def pixels(images):
    return images.reshape(len(images), -1)


def halved(images):
    """Means of 2x2 pixels."""
    h, w = images.shape[1] // 2, images.shape[2] // 2
    cut = images[:, : 2 * h, : 2 * w].reshape(len(images), h, 2, w, 2, -1)
    return cut.mean(axis=(2, 4)).reshape(len(images), -1)


def gradients(images, cells):
    """Histograms of 8 gradient directions in cells x cells parts of each image."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    dy, dx = np.gradient(grey, axis=(1, 2))
    size, turn = np.hypot(dy, dx), (np.arctan2(dy, dx) / np.pi % 1 * 8).astype(int) % 8
    parts = []
    for direction in range(8):
        for band in np.array_split(size * (turn == direction), cells, axis=1):
            parts += [block.mean(axis=(1, 2)) for block in np.array_split(band, cells, axis=2)]
    found = np.stack(parts, axis=1)
    return found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6)


def radial_power_spectrum(images):
    """Mean and spread of the spectrum's log power by distance from its centre."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    power = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey), axes=(1, 2))) ** 2)
    y, x = np.mgrid[: grey.shape[1], : grey.shape[2]]
    away = np.hypot(y - grey.shape[1] // 2, x - grey.shape[2] // 2).round().astype(int)
    bands = [power[:, away == radius] for radius in range(min(grey.shape[1:]) // 2)]
    return np.hstack([np.stack([band.mean(axis=1), band.std(axis=1)], axis=1) for band in bands])


def local_binary_patterns(images):
    """How often a pixel is darker than how many, and which, of its neighbours."""
    grey = images if images.ndim == 3 else images.mean(axis=3)
    h, w = grey.shape[1] - 2, grey.shape[2] - 2
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    brighter = np.stack([grey[:, y : y + h, x : x + w] > grey[:, 1:-1, 1:-1] + 0.01 for y, x in around])
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    code = brighter.sum(axis=0) * 5 + changes // 2
    return np.stack([np.bincount(one.ravel(), minlength=45) for one in code]) / (h * w)


def colours(images, levels):
    """How often each colour, or level of grey, occurs."""
    deep = np.clip(images.reshape(*images.shape[:3], -1), 0, 0.999) * levels
    code = deep.astype(int) @ levels ** np.arange(deep.shape[3])
    size = levels ** deep.shape[3]
    return np.sqrt([np.bincount(one.ravel(), minlength=size) for one in code])


def mirrored(X, y):
    """The images, and copies of them seen in a mirror."""
    return np.concatenate([X, X[:, :, ::-1]]), np.concatenate([y, y])


def shifted(X, y):
    """The images, and copies of them moved by one pixel up, down, left and right."""
    moved = [np.roll(X, step, axis) for axis in (1, 2) for step in (-1, 1)]
    return np.concatenate([X, *moved]), np.concatenate([y] * 5)


def turned(X, y):
    """The images, and copies of them turned by one, two and three right angles."""
    return np.concatenate([np.rot90(X, k, (1, 2)) for k in range(4)]), np.concatenate([y] * 4)


def noisy(X, y, spread):
    """The rows, and copies of them with noise."""
    noise = np.random.default_rng(0).normal(0, spread, X.shape)
    return np.concatenate([X, X + noise]), np.concatenate([y, y])


def flipped(X, y):
    """The pages, and copies of them left to right and upside down."""
    return np.concatenate([X, X[:, :, ::-1], X[:, ::-1]]), np.concatenate([y, y[:, :, ::-1], y[:, ::-1]])


def some_pixels(X, y, count):
    """At most `count` pixels, drawn at random."""
    chosen = np.random.default_rng(0).permutation(len(X))[:count]
    return X[chosen], y.ravel()[chosen]


def grey(pages):
    return pages.reshape(-1, 1)


def mean_around(pages, size):
    return uniform_filter(pages, (1, size, size)).reshape(-1, 1)


def middle_around(pages, size):
    return np.stack([median_filter(page, size) for page in pages]).reshape(-1, 1)


def darkest_around(pages, size):
    return minimum_filter(pages, (1, size, size)).reshape(-1, 1)


def background(pages, size):
    """The paper's shade around each pixel, and how dark the pixel is for it."""
    shade = gaussian_filter(maximum_filter(pages, (1, size, size)), (0, 3, 3))
    return np.stack([shade, pages / np.maximum(shade, 0.01)], axis=-1).reshape(-1, 2)


def patch(pages, size):
    """The size x size pixels around each."""
    edge = size // 2
    padded = np.pad(pages, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    h, w = pages.shape[1:]
    around = [padded[:, y : y + h, x : x + w] for y in range(size) for x in range(size)]
    return np.stack(around, axis=-1).reshape(-1, size * size)


def standardized(series):
    """Each series at zero mean and unit variance."""
    return (series - series.mean(axis=1, keepdims=True)) / (series.std(axis=1, keepdims=True) + 1e-9)


def smoothed(series, sigma):
    return gaussian_filter(series, (0, sigma))


def points(series):
    return series


def slopes(series):
    return np.diff(series, axis=1)


def frequencies(series, count):
    """Strengths of the lowest frequencies, which do not depend on where a series begins."""
    return np.abs(np.fft.rfft(series, axis=1))[:, :count] / series.shape[1]


def summary_statistics(series):
    """Mean, spread and quantiles of the values and of their changes."""
    levels = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]
    parts = [np.quantile(one, levels, axis=1).T for one in (series, np.abs(np.diff(series, axis=1)))]
    return np.hstack([series.mean(axis=1, keepdims=True), series.std(axis=1, keepdims=True), *parts])


def autocorrelation(series):
    """Correlation of each series with itself, later by so many points."""
    even = series - series.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(even, axis=1)) ** 2
    return np.fft.irfft(power, axis=1)[:, 1 : series.shape[1] // 2] / (power.mean(axis=1)[:, None] + 1e-9)


def convolutions(series, kernels):
    """Largest value and share above zero of random convolutions (after ROCKET, Dempster et al. 2020)."""
    rng = np.random.default_rng(0)
    columns = []
    for _ in range(kernels):
        weights = rng.normal(size=9)
        step = int(2 ** rng.uniform(0, np.log2((series.shape[1] - 1) / 8)))
        size = series.shape[1] - 8 * step
        parts = [w * series[:, i * step : i * step + size] for i, w in enumerate(weights - weights.mean())]
        response = sum(parts) + rng.uniform(-1, 1)
        columns += [response.max(axis=1), (response > 0).mean(axis=1)]
    return np.stack(columns, axis=1)


def rolled(X, y, copies):
    """The series, and copies of them that begin elsewhere."""
    starts = np.linspace(0, X.shape[1], copies + 1, endpoint=False).astype(int)
    return np.concatenate([np.roll(X, start, axis=1) for start in starts]), np.concatenate([y] * len(starts))


def adjacency(edges, ids):
    """Which nodes are linked, [nodes, nodes], in both directions."""
    size = int(max(edges.max(), ids.max())) + 1
    both = np.concatenate([edges, edges[:, ::-1]])
    return coo_array((np.ones(len(both)), both.T), shape=(size, size)).tocsr()


def known_labels(links, ids, y):
    """One column for each class, [nodes, classes], of the nodes whose class is known."""
    classes, codes = np.unique(y, return_inverse=True)
    labels = np.zeros((links.shape[0], len(classes)))
    labels[ids, codes] = 1
    return labels


def numbers(frame):
    return frame.fillna(0).to_numpy(float)


def degrees(links):
    return np.asarray(links.sum(axis=1)).reshape(-1, 1)


def neighbours(links, labels):
    """How many neighbours of each class a node has."""
    return links @ labels


def shares(links, labels):
    """Which share of a node's neighbours is of each class."""
    counts = links @ labels
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def two_steps(links, labels):
    """How many nodes of each class are two links away, a node itself not counted."""
    paths = links @ links
    paths.setdiag(0)
    counts = paths @ labels
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def spectral_embedding(links, size):
    """Where nodes lie in the graph: eigenvectors of its scaled adjacency."""
    scale = 1 / np.sqrt(np.asarray(links.sum(axis=1)).ravel() + 1)
    near = links.multiply(scale[:, None]).multiply(scale[None, :]).tocsr()
    return eigsh(near, k=size, v0=np.ones(links.shape[0]))[1]
