#!/usr/bin/env python3
"""Write two small datasets that come with scikit-learn as CSV files.

    pip install scikit-learn pandas
    python make_datasets.py <output folder>

diabetes.csv  regression: `target`, 442 rows
wine.csv      three classes: `cultivar` (barolo, grignolino, barbera), 178 rows

Both have an `id` and a `measured_at`, an hour apart, which the datasets
themselves do not have: they are made up, so that there is a key and a time.
The rows are shuffled, with a fixed seed.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes, load_wine

SEED = 20240101
CULTIVARS = np.array(["barolo", "grignolino", "barbera"])


def write(features: pd.DataFrame, label: str, values, path: Path) -> None:
    rows = features.assign(**{label: values})
    rows = rows.iloc[np.random.default_rng(SEED).permutation(len(rows))]
    times = pd.date_range("2024-01-01", periods=len(rows), freq="h")
    rows.insert(0, "id", [f"{path.stem}-{i:04}" for i in range(len(rows))])
    rows.insert(1, "measured_at", times.strftime("%Y-%m-%dT%H:%M:%SZ"))
    rows.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(rows)} rows")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_datasets.py <output folder>")
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)

    diabetes = load_diabetes(as_frame=True, scaled=False)
    write(diabetes.data, "target", diabetes.target, output / "diabetes.csv")

    wine = load_wine(as_frame=True)
    # One name is "od280/od315_of_diluted_wines".
    features = wine.data.rename(columns=lambda name: name.replace("/", "_"))
    write(features, "cultivar", CULTIVARS[wine.target], output / "wine.csv")


if __name__ == "__main__":
    main()
