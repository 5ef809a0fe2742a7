"""Grant applications that succeed."""

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

train = pd.read_csv("data/train.csv")
test = pd.read_csv("data/test.csv")

target = "successful"
features = test.columns.drop("id").tolist()
X, X_test, y = train[features], test[features], train[target]

X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, test_size=0.2, random_state=0)

model = make_pipeline(
    make_column_transformer(
        (
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
            make_column_selector(dtype_exclude="number"),
        ),
        remainder="passthrough",
    ),
    PCA(n_components=0.5, random_state=0),
    RandomForestClassifier(n_estimators=100, max_depth=3, random_state=0),
)
model.fit(X_fit, y_fit)

valid_predictions = model.predict_proba(X_valid)[:, 1]
score = roc_auc_score(y_valid, valid_predictions)
print(f"validation auc: {score:.4f}")

model.fit(X, y)
predictions = model.predict_proba(X_test)[:, 1]
submission = pd.DataFrame({"id": test["id"], target: predictions})
submission.to_csv("submission.csv", index=False)
