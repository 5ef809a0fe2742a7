"""Small functions that edits put into a script. Real code, so that it is linted and tested; copied as text.

A script that uses one of them needs `np`, and what `names.IMPORTS` knows.
"""

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


def deskewed(X):
    """Each image sheared so that its main axis stands upright."""
    side = int(X.shape[1] ** 0.5)
    rows, columns = np.mgrid[:side, :side]
    upright = []
    for image in X.reshape(-1, side, side):
        mass = image.sum() + 1e-9
        row, column = (rows * image).sum() / mass, (columns * image).sum() / mass
        spread = ((rows - row) ** 2 * image).sum() / mass + 1e-9
        slant = ((rows - row) * (columns - column) * image).sum() / mass / spread
        shear = np.array([[1, 0], [slant, 1]])
        upright.append(affine_transform(image, shear, offset=[0, -slant * row], order=1))
    return np.array(upright).reshape(X.shape)


def blurred(X, sigma):
    side = int(X.shape[1] ** 0.5)
    return gaussian_filter(X.reshape(-1, side, side), (0, sigma, sigma)).reshape(X.shape)


def cropped(X, border):
    side = int(X.shape[1] ** 0.5)
    return X.reshape(-1, side, side)[:, border:-border, border:-border].reshape(len(X), -1)


def halved(X):
    """Each image at half its resolution."""
    side = int(X.shape[1] ** 0.5)
    return X.reshape(-1, side // 2, 2, side // 2, 2).mean(axis=(2, 4)).reshape(len(X), -1)


def contrasted(X):
    """Each image at zero mean and unit variance."""
    return (X - X.mean(axis=1, keepdims=True)) / (X.std(axis=1, keepdims=True) + 1e-9)


def with_profiles(X):
    """Pixels, and the sums of each row and column."""
    side = int(X.shape[1] ** 0.5)
    images = X.reshape(-1, side, side)
    return np.hstack([X, images.sum(axis=1), images.sum(axis=2)])


def with_gradients(X, cells):
    """Pixels, and histograms of 8 gradient directions in cells x cells parts of each image."""
    side = int(X.shape[1] ** 0.5)
    vertical, horizontal = np.gradient(X.reshape(-1, side, side), axis=(1, 2))
    strength = np.hypot(vertical, horizontal)
    direction = ((np.arctan2(vertical, horizontal) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    parts = [X]
    for bin in range(8):
        picture = strength * (direction == bin)
        for band in np.array_split(picture, cells, axis=1):
            parts += [block.sum(axis=(1, 2))[:, None] for block in np.array_split(band, cells, axis=2)]
    return np.hstack(parts)


def shifted(X, y):
    """The images, and copies of them moved by one pixel up, down, left and right."""
    side = int(X.shape[1] ** 0.5)
    images = X.reshape(-1, side, side)
    copies = [np.roll(images, step, axis).reshape(X.shape) for axis in (1, 2) for step in (-1, 1)]
    return np.concatenate([X, *copies]), np.concatenate([y] * 5)


def mirrored(X, y):
    """The images, and copies of them seen in a mirror."""
    side = int(X.shape[1] ** 0.5)
    copies = X.reshape(-1, side, side)[:, :, ::-1].reshape(X.shape)
    return np.concatenate([X, copies]), np.concatenate([y, y])


def noisy(X, y):
    """The images, and copies of them with noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, X.shape)
    return np.concatenate([X, X + noise]), np.concatenate([y, y])


def part_of(X, y, share):
    """A random share of the rows."""
    keep = np.random.default_rng(0).random(len(y)) < share
    return X[keep], y[keep]


def without_outliers(X, y, share):
    """Rows whose target is neither among the smallest nor the largest `share`."""
    keep = ((y >= y.quantile(share)) & (y <= y.quantile(1 - share))).to_numpy()
    return X[keep], y[keep]


def without_gaps(X, y):
    """Rows in which nothing is missing."""
    keep = (X.notna().all(axis=1) & (X != 0).all(axis=1)).to_numpy()
    return X[keep], y[keep]


def logged(X):
    return np.sign(X) * np.log1p(np.abs(X))


def most_correlated(frame, target, count):
    """The numeric columns that follow the target most closely."""
    strength = frame.select_dtypes("number").drop(columns="id").corr()[target].abs().drop(target)
    return strength.nlargest(count).index.tolist()


def text_sizes(texts):
    """Letters, words and exclamation marks of each text, in hundreds."""
    return np.array([[len(text), len(text.split()), text.count("!")] for text in texts]) / 100


def dense(X):
    return X.toarray()
