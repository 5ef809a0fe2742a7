"""Clean stained pages with a linear model of each pixel's grey and the mean around it."""

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split

train_images = np.load("data/train_dirty.npy").astype(float)[:12]
train_targets = np.load("data/train_clean.npy").astype(float)[:12]
test_images = np.load("data/test_dirty.npy").astype(float)


def pixels(images: np.ndarray) -> np.ndarray:
    """Grey of each pixel and the mean of the 5x5 around it, [pixels, 2]."""
    mean = uniform_filter(images, size=(1, 5, 5))
    return np.stack([images, mean], axis=-1).reshape(-1, 2)


fit_images, valid_images, fit_targets, valid_targets = train_test_split(
    train_images, train_targets, test_size=0.4, random_state=0
)

model = Ridge(alpha=1.0)
model.fit(pixels(fit_images), fit_targets.ravel())

valid_predictions = np.clip(model.predict(pixels(valid_images)), 0, 255)
score = root_mean_squared_error(valid_targets.ravel(), valid_predictions)
print(f"validation rmse: {score:.4f}")

predictions = np.clip(model.predict(pixels(test_images)), 0, 255)
np.save("submission.npy", predictions.reshape(test_images.shape).astype(np.float32))
