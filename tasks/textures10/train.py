"""Tell from which picture a patch was cut with a small forest on raw pixels."""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv").head(600)
test = pd.read_csv("data/test.csv")
train_images = np.load("data/train_images.npy")[: len(train)]
test_images = np.load("data/test_images.npy")

target = "picture"
X = train_images.reshape(len(train_images), -1) / 255
X_test = test_images.reshape(len(test_images), -1) / 255
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.4, random_state=0)

model = RandomForestClassifier(n_estimators=20, max_depth=6, random_state=0)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = accuracy_score(y_valid, valid_predictions)
print(f"validation accuracy: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
