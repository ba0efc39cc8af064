"""`tidemill convert` and `deploy --convert`: what Python trained and pickled is answered without Python, as the original answers."""

import json
import os
import pickle
import subprocess

import joblib
import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import xgboost
from conftest import Project, binary, worker_env
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    ExtraTreesRegressor, GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

X, Y = load_iris(return_X_y=True)
FRAME = pd.DataFrame(X, columns=["a", "b", "c", "d"])
NAMED = np.array(["setosa", "versicolor", "virginica"])[Y]
QUIET = {"n_estimators": 12, "n_jobs": 1}


def mixed():
    frame = FRAME.assign(e=np.where(Y == 1, "red", np.where(X[:, 0] > 5.5, "green", "blue")))
    coded = ColumnTransformer([("e", OneHotEncoder(handle_unknown="ignore"), ["e"])], remainder="passthrough")
    return make_pipeline(coded, RandomForestClassifier(10, random_state=0)).fit(frame, NAMED), frame


def pickles():
    """name -> (model, rows to ask with, method)"""
    pipeline, frame = mixed()
    return {
        "forest": (RandomForestClassifier(20, random_state=0).fit(X, Y), X, None),
        "histogram": (HistGradientBoostingClassifier(max_iter=15).fit(FRAME, NAMED), FRAME, None),
        "histogram_proba": (HistGradientBoostingClassifier(max_iter=15).fit(FRAME, NAMED == "setosa"), FRAME, "predict_proba"),
        "boosting": (GradientBoostingClassifier(n_estimators=10).fit(FRAME, Y > 0), FRAME, None),
        "numbers": (ExtraTreesRegressor(10, random_state=0).fit(FRAME, X[:, 0] * 2), FRAME, None),
        "scaled": (make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(FRAME, NAMED), FRAME, None),
        "mixed": (pipeline, frame, None),
        "xgb": (xgboost.XGBClassifier(**QUIET, max_depth=3).fit(FRAME, Y), FRAME, None),
        "xgb_stopped": (
            xgboost.XGBClassifier(**QUIET, early_stopping_rounds=1, learning_rate=1.5).fit(FRAME, Y > 0, eval_set=[(FRAME[::-1] + 1, Y > 1)], verbose=False),
            FRAME, "predict_proba",
        ),
        "lgbm": (lightgbm.LGBMClassifier(**QUIET, verbose=-1).fit(FRAME, NAMED), FRAME, None),
        "lgbm_number": (lightgbm.LGBMRegressor(**QUIET, verbose=-1).fit(FRAME, X[:, 1]), FRAME, None),
    }


MODELS = pickles()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    project = Project(folder, "", worker_env())
    project.up()
    yield project
    project.stop()


def ask(server, name, rows):
    body = {"instances": rows.tolist()} if isinstance(rows, np.ndarray) else {"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}
    answer = requests.post(f"{server.url}/invocations/{name}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def platform(server, name):
    return requests.get(f"{server.url}/v2/models/{name}", timeout=30).json()["platform"]


def same(got, expected):
    expected = np.asarray(expected)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-6, atol=1e-6)
    else:
        assert got == expected.tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_pickle_is_answered_without_python_and_alike(server, name):
    model, rows, method = MODELS[name]
    path = server.folder / f"{name}.pkl"
    path.write_bytes(pickle.dumps(model))
    more = ["--method", method] if method else []
    told = json.loads(server.run("convert", path.name, "--to", f"{name}-native", *more, "--json"))
    assert told["converted"] and told["samples"] >= 200
    server.run("deploy", f"{name}-native", "--name", name, "--json")
    assert platform(server, name) in ("sklearn_trees", "xgboost", "lightgbm")
    same(ask(server, name, rows), getattr(model, method or "predict")(rows))
    # At deploying the same happens on the server.
    server.run("deploy", path.name, "--name", f"{name}-again", "--convert", *more, "--json")
    assert platform(server, f"{name}-again") == platform(server, name)
    same(ask(server, f"{name}-again", rows), getattr(model, method or "predict")(rows))


def test_joblibs_own_files_are_read_and_the_interface_is_the_originals(server):
    model = RandomForestClassifier(5, random_state=1).fit(X, Y)
    joblib.dump(model, server.folder / "plain.joblib")
    server.run("deploy", "plain.joblib", "--name", "in-python", "--json")
    server.run("deploy", "plain.joblib", "--name", "native", "--convert", "--json")
    of = lambda name: requests.get(f"{server.url}/v2/models/{name}", timeout=30).json()
    assert of("in-python")["inputs"] == of("native")["inputs"]
    assert (of("in-python")["platform"], of("native")["platform"]) == ("python", "sklearn_trees")
    assert ask(server, "native", X) == ask(server, "in-python", X) == model.predict(X).tolist()
    # And it explains itself.
    body = {"instances": X[:2].tolist()}
    answer = requests.post(f"{server.url}/api/v1/deployments/native/explain", json=body, timeout=60).json()
    assert answer["method"] == "tree_shap" and len(answer["explanations"][0]) == 3


class Evil:
    def __reduce__(self):
        return (print, ("loaded",))


def test_what_cannot_be_converted_says_why_and_stays_in_python(server):
    linear = LogisticRegression(max_iter=500).fit(FRAME, Y)
    (server.folder / "linear.pkl").write_bytes(pickle.dumps(linear))
    done = subprocess.run(
        [binary(), "convert", "linear.pkl", "--to", "linear-native"], cwd=server.folder, env=os.environ | server.env,
        capture_output=True, text=True,
    )
    assert done.returncode == 4 and "a model of type LogisticRegression" in done.stderr, done.stderr
    assert not (server.folder / "linear-native").exists()
    server.run("deploy", "linear.pkl", "--convert", "--json")
    assert platform(server, "linear") == "python"
    assert ask(server, "linear", FRAME) == linear.predict(FRAME).tolist()
    (server.folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    told = json.loads(server.run("convert", "evil.pkl", "--to", "evil-native", "--json", code=4))
    assert not told["converted"] and "no `predict`" in told["why"]
    (server.folder / "cut.pkl").write_bytes(pickle.dumps(linear)[:100])
    told = json.loads(server.run("convert", "cut.pkl", "--to", "cut-native", "--json", code=4))
    assert "its conversion failed" in told["why"]
    assert "nothing that can be deployed" in subprocess.run(
        [binary(), "convert", "nothing.pkl", "--to", "x"], cwd=server.folder, capture_output=True, text=True
    ).stderr


def logged():
    """name -> how mlflow's client logs it"""
    forest, xgb, lgbm = MODELS["forest"][0], MODELS["xgb"][0], MODELS["lgbm"][0]
    signed = lambda model, rows: {"signature": infer_signature(rows, model.predict(rows))}
    named = RandomForestClassifier(20, random_state=0).fit(FRAME, NAMED)
    sklearn = {"serialization_format": "pickle"}
    skops = {"serialization_format": "skops", "skops_trusted_types": ["numpy.dtype", "sklearn.tree._tree.Tree"]}
    return {
        "flavour-sklearn": (named, lambda: mlflow.sklearn.log_model(named, name="m", **sklearn, **signed(named, FRAME))),
        "flavour-matrix": (forest, lambda: mlflow.sklearn.log_model(forest, name="m", **skops, **signed(forest, X))),
        "sklearn-xgb": (xgb, lambda: mlflow.sklearn.log_model(xgb, name="m", **sklearn, **signed(xgb, FRAME))),
        "sklearn-lgbm": (lgbm, lambda: mlflow.sklearn.log_model(lgbm, name="m", **sklearn, **signed(lgbm, FRAME))),
        "flavour-xgb": (xgb, lambda: mlflow.xgboost.log_model(xgb, name="m", **signed(xgb, FRAME))),
        "flavour-lgbm": (lgbm, lambda: mlflow.lightgbm.log_model(lgbm, name="m", **signed(lgbm, FRAME))),
        "unsigned-xgb": (xgb, lambda: mlflow.xgboost.log_model(xgb, name="m")),
    }


@pytest.mark.parametrize("name", ["flavour-sklearn", "flavour-matrix", "sklearn-xgb", "sklearn-lgbm", "flavour-xgb", "flavour-lgbm", "unsigned-xgb"])
def test_what_mlflow_logged_is_answered_without_python_and_alike(server, name):
    model, log = logged()[name]
    mlflow.set_tracking_uri(server.url)
    mlflow.set_experiment("convert")
    with mlflow.start_run():
        info = log()
    version = mlflow.register_model(info.model_uri, name).version
    original = mlflow.pyfunc.load_model(info.model_uri)
    rows = X if name == "flavour-matrix" else FRAME
    server.run("deploy", f"models:/{name}/{version}", "--name", name, "--convert", "--json")
    assert platform(server, name) in ("sklearn_trees", "xgboost", "lightgbm")
    same(ask(server, name, rows), original.predict(rows))
    assert ask(server, name, rows) == np.asarray(model.predict(rows)).tolist()
