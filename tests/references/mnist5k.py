"""Support vectors on deskewed, blurred images, with every training image also shifted by a pixel."""

import numpy as np
import pandas as pd
from scipy.ndimage import affine_transform, gaussian_filter, shift
from sklearn.decomposition import PCA
from sklearn.svm import SVC

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")


def deskewed(image: np.ndarray) -> np.ndarray:
    """Upright and centred, by the image's second moments."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum()
    center = np.array([(rows * image).sum(), (columns * image).sum()]) / total
    variance = (((rows - center[0]) ** 2) * image).sum() / total
    covariance = ((rows - center[0]) * (columns - center[1]) * image).sum() / total
    skew = np.array([[1, 0], [covariance / variance, 1]])
    return affine_transform(image, skew, offset=center - skew @ (np.array(image.shape) - 1) / 2, order=1)


images = np.stack([deskewed(image) for image in np.load("data/train_images.npy") / 255.0])
test_images = np.stack([deskewed(image) for image in np.load("data/test_images.npy") / 255.0])
views = [images] + [shift(images, (0, dy, dx), order=1) for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1))]


def flat(images: np.ndarray) -> np.ndarray:
    X = gaussian_filter(images, (0, 0.7, 0.7)).reshape(len(images), -1)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


X, y = flat(np.concatenate(views)), np.tile(train["digit"], len(views))
pca = PCA(60, random_state=0).fit(X)
model = SVC(C=10, gamma=3.0).fit(pca.transform(X), y)
predictions = model.predict(pca.transform(flat(test_images)))
pd.DataFrame({"id": test["id"], "digit": predictions}).to_csv("submission.csv", index=False)
