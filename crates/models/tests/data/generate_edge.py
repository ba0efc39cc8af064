"""Writes edge.json: small LightGBM models of every objective and missing type that the three real ones leave out.

Run: python generate_edge.py (python 3.11, lightgbm 4.7, numpy). Predictions are LightGBM's own, from the text it saved.
"""

import json
import pathlib

import lightgbm as lgb
import numpy as np

rng = np.random.default_rng(7)
ROWS, COLUMNS = 800, 5
x = rng.normal(size=(ROWS, COLUMNS))
x[:, 2] = np.where(rng.random(ROWS) < 0.4, 0.0, x[:, 2])  # many zeros
x[:, 3] = rng.integers(0, 70, ROWS)  # categories, more than one word of bits
x[rng.random(ROWS) < 0.15, 1] = np.nan
signal = 1.5 * np.nan_to_num(x[:, 0]) + (x[:, 3] % 7 < 3) + np.where(x[:, 2] == 0, 1.0, x[:, 2]) + np.isnan(x[:, 1])
noise = rng.normal(scale=0.3, size=ROWS)
real = signal + noise
positive = np.exp(0.3 * real)
count = rng.poisson(positive).astype(float)
yes = (real > np.median(real)).astype(float)
share = 1 / (1 + np.exp(-real))
three = np.digitize(real, np.quantile(real, [0.33, 0.66])).astype(float)

# Rows to predict: missing values in every column (columns 0, 2 and 3 had none in training), unseen categories, tiny numbers.
probe = x[:60].copy()
for column in range(COLUMNS):
    probe[column * 6 : column * 6 + 5, column] = np.nan
probe[30:36, 3] = [70, 500, 31, 32, 63, 64]
probe[36:44, 2] = [0.0, -0.0, 1e-35, -1e-35, 9e-36, -9e-36, 2e-35, -2e-35]
probe[44:46, 0] = [1e300, -1e300]

CASES = {
    "binary": (yes, {"objective": "binary", "sigmoid": 1.7}),
    "binary_zero_as_missing": (yes, {"objective": "binary", "zero_as_missing": True}),
    "binary_no_missing": (yes, {"objective": "binary", "use_missing": False}),
    "binary_forest": (yes, {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    "binary_dart": (yes, {"objective": "binary", "boosting": "dart"}),
    "cross_entropy": (share, {"objective": "cross_entropy"}),
    "cross_entropy_lambda": (share, {"objective": "cross_entropy_lambda"}),
    "multiclass": (three, {"objective": "multiclass", "num_class": 3}),
    "multiclassova": (three, {"objective": "multiclassova", "num_class": 3}),
    "multiclass_forest": (
        three,
        {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    ),
    "regression_sqrt": (real, {"objective": "regression", "reg_sqrt": True}),
    "regression_l1": (real, {"objective": "regression_l1"}),
    "huber": (real, {"objective": "huber"}),
    "quantile": (real, {"objective": "quantile", "alpha": 0.9}),
    "poisson": (count, {"objective": "poisson"}),
    "gamma": (positive, {"objective": "gamma"}),
    "tweedie": (count, {"objective": "tweedie"}),
    "stumps_only": (np.full(ROWS, 3.25), {"objective": "regression"}),
    "one_leaf_at_last": (yes, {"objective": "binary", "min_gain_to_split": 60.0}),
}

cases = []
for name, (label, params) in CASES.items():
    data = lgb.Dataset(x, label=label, categorical_feature=[3])
    params = {
        **params, "num_leaves": 6, "verbosity": -1, "seed": 3, "deterministic": True, "num_threads": 1, "max_bin": 63,
        "min_data_per_group": 20, "cat_smooth": 1.0,
    }
    text = lgb.train(params, data, num_boost_round=4).model_to_string()
    saved = lgb.Booster(model_str=text)
    cases.append({
        "name": name,
        "model": text.split("\nfeature_importances:")[0].split("end of trees")[0] + "end of trees\n",
        "expected": np.asarray(saved.predict(probe)).reshape(len(probe), -1).tolist(),
    })
rows = [[None if np.isnan(v) else v for v in row] for row in probe.tolist()]
path = pathlib.Path(__file__).with_name("edge.json")
path.write_text(json.dumps({"lightgbm": lgb.__version__, "rows": rows, "cases": cases}, indent=0) + "\n")
print(path, path.stat().st_size)
for case in cases:
    print(case["name"], case["model"].count("Tree="), [l for l in case["model"].splitlines() if l.startswith("objective")], case["expected"][0])
