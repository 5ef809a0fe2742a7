"""Predict who was transported with logistic regression on age and spending."""

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "Transported"
features = ["Age", "RoomService", "FoodCourt", "ShoppingMall", "Spa", "VRDeck"]

X = train[features].fillna(0)
X_test = test[features].fillna(0)
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = accuracy_score(y_valid, valid_predictions)
print(f"validation accuracy: {score:.4f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"PassengerId": test["PassengerId"], target: predictions})
submission.to_csv("submission.csv", index=False)
