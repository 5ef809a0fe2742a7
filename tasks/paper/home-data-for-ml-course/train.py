"""Predict house prices with a random forest on a few numbers."""

import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "SalePrice"
features = ["LotArea", "YearBuilt", "1stFlrSF", "2ndFlrSF", "FullBath", "BedroomAbvGr", "TotRmsAbvGrd"]

X = train[features]
X_test = test[features]
y = train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=1)

model = RandomForestRegressor(random_state=1)
model.fit(X_fit, y_fit)

valid_predictions = model.predict(X_valid)
score = mean_absolute_error(y_valid, valid_predictions)
print(f"validation mae: {score:.0f}")

predictions = model.predict(X_test)
submission = pd.DataFrame({"Id": test["Id"], target: predictions})
submission.to_csv("submission.csv", index=False)
