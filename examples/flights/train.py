#!/usr/bin/env python3
"""A training script for Tidemill's `run:`: LightGBM on the flights example.

The server starts it with these variables set:

    TIDEMILL_TRAIN_DATA  Parquet file, or several separated by ':'
    TIDEMILL_FEATURES    JSON file: [{"name": ..., "kind": "numeric"|"categorical"}]
    TIDEMILL_LABEL       name of the label column
    TIDEMILL_PARAMS      JSON file: parameters, see DEFAULTS
    TIDEMILL_SEED        whole number
    TIDEMILL_OUTPUT      folder for the results

and expects in the output folder:

    model.txt     the model as LightGBM's text
    model.json    how to encode the features for it
    metrics.json  {"name": number}

The code of a categorical value is its position in the manifest's list of
categories; null, and a value that is not in the list, are missing.

The label is binary (two values, or booleans), several classes (text, or with
the parameter "objective": "multiclass"), or, with "objective": "regression",
a number. Rows without a label are left out.
"""

import json
import os
import sys
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd

DEFAULTS = {
    "num_trees": 150,
    "num_leaves": 31,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "lambda_l2": 5.0,
    "cat_smooth": 20.0,
}


def setting(name: str) -> str:
    value = os.environ.get(f"TIDEMILL_{name}")
    if not value:
        sys.exit(f"TIDEMILL_{name} is not set")
    return value


def encode(rows: pd.DataFrame, features: list[dict]) -> np.ndarray:
    """The feature matrix; categories are added to `features` where missing."""
    matrix = np.empty((len(rows), len(features)))
    for i, feature in enumerate(features):
        column = rows[feature["name"]]
        if feature["kind"] == "categorical":
            text = column.astype("string")
            if "categories" not in feature:
                feature["categories"] = sorted(text.dropna().unique().tolist())
            codes = pd.Categorical(text, categories=feature["categories"]).codes
            matrix[:, i] = np.where(codes < 0, np.nan, codes)
        else:
            matrix[:, i] = pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)
    return matrix


def train(
    rows: pd.DataFrame, label: str, features: list[dict], params: dict, seed: int
) -> tuple[lgb.Booster, dict, dict]:
    """Returns the model, its manifest and the metrics."""
    rows = rows[rows[label].notna()]
    if rows.empty:
        sys.exit(f"no row has a value in {label}")
    features = [{"name": f["name"], "kind": f["kind"]} for f in features]
    matrix = encode(rows, features)

    params = DEFAULTS | params
    manifest = {"format": "lightgbm", "file": "model.txt", "features": features}
    objective = params.get("objective")
    if objective == "regression":
        target = rows[label].to_numpy(dtype=float)
    else:
        values = sorted(rows[label].unique().tolist())
        if len(values) < 2:
            sys.exit(f"{label} has one value only: {values[0]!r}")
        target = rows[label].map({v: i for i, v in enumerate(values)}).to_numpy(dtype=float)
        if objective is None:
            objective = "binary" if len(values) == 2 else "multiclass"
        if objective == "multiclass":
            params["num_class"] = len(values)
        # Class i of the model is the i-th of these values.
        manifest["classes"] = values

    rounds = int(params.pop("num_trees"))
    params |= {
        "objective": objective,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 2,
        "verbosity": -1,
    }
    data = lgb.Dataset(
        matrix, target,
        feature_name=[f"f{i}" for i in range(len(features))],
        categorical_feature=[i for i, f in enumerate(features) if f["kind"] == "categorical"],
        params=params,
    )
    model = lgb.train(params, data, rounds)

    metrics = {"rows": len(rows), "trees": model.num_trees()}
    predicted = model.predict(matrix)
    if objective == "regression":
        metrics["train_rmse"] = float(np.sqrt(np.mean((predicted - target) ** 2)))
    else:
        of_class = predicted if objective == "multiclass" else np.c_[1 - predicted, predicted]
        chosen = of_class[np.arange(len(target)), target.astype(int)]
        metrics["train_log_loss"] = float(-np.log(np.maximum(chosen, 1e-15)).mean())
    return model, manifest, metrics


def main() -> None:
    output = Path(setting("OUTPUT"))
    features = json.loads(Path(setting("FEATURES")).read_text())
    params = json.loads(Path(setting("PARAMS")).read_text())
    label = setting("LABEL")
    columns = [f["name"] for f in features] + [label]
    rows = pd.concat(
        [pd.read_parquet(path, columns=columns) for path in setting("TRAIN_DATA").split(":")],
        ignore_index=True,
    )

    model, manifest, metrics = train(rows, label, features, params, int(setting("SEED")))

    output.mkdir(parents=True, exist_ok=True)
    model.save_model(output / "model.txt")
    (output / "model.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (output / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
