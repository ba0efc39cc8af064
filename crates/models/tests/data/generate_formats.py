"""Writes formats/: small models of XGBoost and scikit-learn with rows and the answers of their libraries.

Run: python generate_formats.py (python 3.11, xgboost 3.2, scikit-learn 1.9).
"""

import json
import pathlib
import sys

import numpy as np
import pandas as pd
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

here = pathlib.Path(__file__).parent
sys.path.insert(0, str(here.parents[3] / "python/tidemill_worker"))
from sklearn_trees import convert  # noqa: E402

rng = np.random.default_rng(4)
x = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200), "colour": rng.choice(["red", "green", "blue"], 200)})
x.loc[rng.random(200) < 0.2, "b"] = np.nan
y = ((x.colour == "red") | (x.a > 0.3)).astype(int)
three = y + (x.b > 0.5)
rows = x.iloc[:12].copy()
folder = here / "formats"
folder.mkdir(exist_ok=True)
expected = {}

coded = x.assign(colour=pd.Categorical(x.colour))
data = xgboost.DMatrix(coded, three, enable_categorical=True)
params = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "max_cat_to_onehot": 1, "nthread": 1}
booster = xgboost.train(params, data, 2)
(folder / "xgboost.json").write_bytes(bytes(booster.save_raw("json")))
(folder / "xgboost.ubj").write_bytes(bytes(booster.save_raw("ubj")))
expected["xgboost"] = booster.predict(xgboost.DMatrix(coded.iloc[:12], enable_categorical=True)).astype(float).tolist()

columns = make_column_transformer((SimpleImputer(), ["a", "b"]), (OneHotEncoder(handle_unknown="ignore"), ["colour"]))
forest = make_pipeline(columns, RandomForestClassifier(3, max_depth=3, random_state=0)).fit(x, three)
(folder / "sklearn.json").write_text(json.dumps(convert(forest)))
expected["sklearn"] = forest.predict_proba(rows).tolist()

columns = {name: [None if pd.isna(value) else value for value in rows[name]] for name in rows}
(folder / "rows.json").write_text(json.dumps({"columns": columns, "expected": expected}))
for path in folder.iterdir():
    print(path.name, path.stat().st_size)
