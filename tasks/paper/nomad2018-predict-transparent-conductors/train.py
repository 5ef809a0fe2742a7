"""Predict formation energy and bandgap of oxides with ridge regression on their composition."""

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_log_error
from sklearn.model_selection import train_test_split

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

targets = ["formation_energy_ev_natom", "bandgap_energy_ev"]
features = ["percent_atom_al", "percent_atom_ga", "percent_atom_in", "number_of_total_atoms"]

X = train[features]
X_test = test[features]
y = train[targets]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = Ridge(alpha=1.0)
model.fit(X_fit, np.log1p(y_fit))

valid_predictions = np.clip(np.expm1(model.predict(X_valid)), 0, None)
score = root_mean_squared_log_error(y_valid, valid_predictions)
print(f"validation mean column rmsle: {score:.4f}")

predictions = np.clip(np.expm1(model.predict(X_test)), 0, None)
submission = pd.DataFrame(predictions, columns=targets)
submission.insert(0, "id", test["id"])
submission.to_csv("submission.csv", index=False)
