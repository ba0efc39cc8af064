"""Tree ensembles: rows a second on one core beside ONNX Runtime. Makes the models, times both in turn, and prints ratios.

Run by `make bench-trees`: python trees.py TREES_BENCH, where TREES_BENCH is the compiled `crates/models/benches/trees.rs`.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import lightgbm
import numpy as np
import onnxruntime
import xgboost
from onnxmltools.convert import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

ROWS, FEATURES, TREES, REPEATS = 20_000, 10, 300, 3
# With missing values and categorical splits at least 1.2 times ONNX Runtime, without at least 3 times.
TARGETS = {"lightgbm": 3.0, "lightgbm, missing values": 1.2, "lightgbm, missing values and categories": 1.2, "xgboost": 3.0}


def data(missing, categories):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32).astype(np.float64)
    if categories:
        for column in (3, 7):
            x[:, column] = rng.integers(0, 24, ROWS)
    score = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + (x[:, 3] % 5 < 2) + 0.5 * x[:, 4] ** 2 - x[:, 7] * 0.3 * (x[:, 5] > 0)
    y = (score + rng.normal(scale=0.5, size=ROWS) > np.median(score)).astype(int)
    if missing:
        numeric = [c for c in range(FEATURES) if not (categories and c in (3, 7))]
        holes = rng.random((ROWS, len(numeric))) < 0.1
        x[:, numeric] = np.where(holes, np.nan, x[:, numeric])
    return x, y


def lightgbm_model(x, y, categories):
    # `min_data_per_group` and one-hot splits as LightGBM has them by default.
    train = lightgbm.Dataset(x, label=y, categorical_feature=[3, 7] if categories else [])
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 31, "verbosity": -1, "seed": 1, "num_threads": 1}, train, num_boost_round=TREES
    )
    onnx = convert_lightgbm(booster, initial_types=[("x", FloatTensorType([None, FEATURES]))], zipmap=False)
    return "lightgbm", "model.txt", booster.model_to_string().encode(), onnx, booster.predict


def xgboost_model(x, y):
    model = xgboost.XGBClassifier(n_estimators=TREES, max_depth=5, max_leaves=31, learning_rate=0.1, n_jobs=1).fit(x, y)
    onnx = convert_xgboost(model, initial_types=[("x", FloatTensorType([None, FEATURES]))])
    booster = model.get_booster()
    predict = lambda rows: booster.predict(xgboost.DMatrix(rows))  # noqa: E731
    return "xgboost", "model.json.xgb", bytes(booster.save_raw("json")), onnx, predict


def manifest(kind, file):
    features = [{"name": f"f{i}", "kind": "numeric"} for i in range(FEATURES)]
    return {"format": kind, "file": file, "task": "binary", "features": features}


def onnx_session(onnx):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx.SerializeToString(), options, providers=["CPUExecutionProvider"])


def best(call, seconds):
    """The best time of one call, over so many seconds."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    bench = sys.argv[1]
    seconds = float(os.environ.get("SECONDS_EACH", "1.0"))
    cases = {
        "lightgbm": (data(False, False), lambda x, y: lightgbm_model(x, y, False)),
        "lightgbm, missing values": (data(True, False), lambda x, y: lightgbm_model(x, y, False)),
        "lightgbm, missing values and categories": (data(True, True), lambda x, y: lightgbm_model(x, y, True)),
        "xgboost": (data(False, False), xgboost_model),
    }
    made = {name: (x, make(x, y)) for name, ((x, y), make) in cases.items() if name in sys.argv[2:] or not sys.argv[2:]}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    failed = False
    for name, (x, (kind, file, model, onnx, predict)) in made.items():
        session, probe = onnx_session(onnx), x[:1024]
        floats = probe.astype(np.float32)
        output = session.get_outputs()[-1].name
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "model.json").write_text(json.dumps(manifest(kind, file)))
            (folder / file).write_bytes(model)
            probe.tofile(folder / "rows.f64")
            np.asarray(predict(probe), dtype=np.float64).tofile(folder / "expected.f64")
            theirs, ours = {}, {}
            for _ in range(REPEATS):
                for rows in (1, 1024):
                    feed = {"x": floats[:rows]}
                    took = best(lambda: session.run([output], feed), seconds)
                    theirs[rows] = min(theirs.get(rows, took), took)
                lines = subprocess.run(
                    [bench, str(folder), str(seconds)], check=True, text=True, capture_output=True,
                    env={**os.environ, "RAYON_NUM_THREADS": "1"},
                ).stdout
                measured = json.loads(lines)
                for rows in (1, 1024):
                    took = measured[str(rows)]
                    ours[rows] = min(ours.get(rows, took), took)
        ratio = theirs[1024] / ours[1024]
        failed |= ratio < TARGETS[name]
        print(
            f"{name}: 1,024 rows {1024 / ours[1024]:,.0f} rows/s, ONNX Runtime {1024 / theirs[1024]:,.0f} rows/s,"
            f" ratio {ratio:.1f} (target {TARGETS[name]});"
            f" one row {ours[1] * 1e6:.1f} us, ONNX Runtime through Python {theirs[1] * 1e6:.1f} us", flush=True
        )
    sys.exit(failed)


main()
