"""Trains the benchmark's model by the `run:` contract: LightGBM, 100 trees of 31 leaves."""

import json
import os
import shutil
from pathlib import Path

import lightgbm as lgb
import pandas as pd

features = json.loads(Path(os.environ["TIDEMILL_FEATURES"]).read_text())
names = [feature["name"] for feature in features]
frame = pd.concat(pd.read_parquet(path) for path in os.environ["TIDEMILL_TRAIN_DATA"].split(":"))
target = frame[os.environ["TIDEMILL_LABEL"]].astype(int)
booster = lgb.train(
    {"objective": "binary", "num_leaves": 31, "seed": 1, "deterministic": True, "num_threads": 2, "verbose": -1},
    lgb.Dataset(frame[names], label=target),
    num_boost_round=100,
)
out = Path(os.environ["TIDEMILL_OUTPUT"])
booster.save_model(out / "model.txt")
manifest = {"format": "lightgbm", "file": "model.txt", "task": "binary", "features": features}
(out / "model.json").write_text(json.dumps(manifest))
if copy := os.environ.get("BENCH_MODEL"):
    shutil.copy(out / "model.txt", copy)
