"""Trains models with their own libraries and writes each as a bundle, with rows and the library's answers to them.

Run by `tests/originals.rs`: python make.py FOLDER. Every case is a folder FOLDER/NAME with `bundle/` (the model's files), and
`case.json`: {"columns": {name: [values or null]}, "expected": [[numbers a row]], "compare": "bits" or a tolerance}.
"""

import json
import pathlib
import sys
import warnings

import lightgbm
import numpy as np
import pandas as pd
import xgboost

warnings.filterwarnings("ignore")
FOLDER = pathlib.Path(sys.argv[1])
SEED, ROWS, PROBES = 11, 600, 200


def write(name, files, frame, expected, compare, labels=None):
    """One case. `frame` holds the columns as a client would send them."""
    bundle = FOLDER / name / "bundle"
    bundle.mkdir(parents=True)
    for file, content in files.items():
        (bundle / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    columns = {}
    for column in frame.columns:
        values = frame[column]
        if values.dtype.kind in "fiub":
            columns[str(column)] = [None if np.isnan(v) else float(v) for v in values]
        else:
            columns[str(column)] = [None if pd.isna(v) else str(v) for v in values]
    expected = np.asarray(expected, dtype=np.float64).reshape(len(frame), -1)
    case = {"columns": columns, "expected": expected.tolist(), "compare": compare, "labels": labels}
    (FOLDER / name / "case.json").write_text(json.dumps(case))


rng = np.random.default_rng(SEED)
NUMBERS = ["a", "b", "c", "d"]
x = pd.DataFrame(rng.normal(size=(ROWS, 4)), columns=NUMBERS)
x["colour"] = pd.Categorical(rng.choice(["red", "green", "blue", "black"], ROWS))
x["town"] = pd.Categorical([f"town {i}" for i in rng.integers(0, 70, ROWS)])
x.loc[rng.random(ROWS) < 0.15, "b"] = np.nan
x.loc[rng.random(ROWS) < 0.1, "colour"] = np.nan
signal = (
    x.a * 1.5 + np.nan_to_num(x.b) ** 2 + (x.colour == "red") - x.town.cat.codes % 5 * 0.4 + np.sin(3 * x.c)
).to_numpy(dtype=float)
real = signal + rng.normal(scale=0.4, size=ROWS)
yes = (real > np.median(real)).astype(int)
three = np.digitize(real, np.quantile(real, [0.33, 0.66]))
counts = rng.poisson(np.exp(0.3 * (real - real.mean())))
positive = np.exp(0.2 * real)
probe = x.iloc[:PROBES].copy()
probe.loc[probe.index[:20], "a"] = np.nan
probe.loc[probe.index[20:30], ["c", "town"]] = np.nan
plain, plain_probe = x[NUMBERS].fillna(0.25), probe[NUMBERS].fillna(0.25)


def lightgbm_cases():
    def train(label, params, data=x, rounds=30):
        return lightgbm.train({"verbosity": -1, "seed": 3, "num_threads": 1, **params}, lightgbm.Dataset(data, label), rounds)

    def case(name, booster, rows):
        files = {"model.json": {"format": "lightgbm", "file": "model.txt"}, "model.txt": booster.model_to_string().encode()}
        write(f"lightgbm_{name}", files, rows, booster.predict(rows), "bits")

    case("binary_raw_columns", train(yes, {"objective": "binary", "min_data_per_group": 5}), probe)
    case("multiclass_raw_columns", train(three, {"objective": "multiclass", "num_class": 3, "num_leaves": 50}), probe)
    case("regression_large_trees", train(real, {"num_leaves": 200, "min_data_in_leaf": 2, "max_cat_to_onehot": 100}), probe)
    case("zero_as_missing", train(yes, {"objective": "binary", "zero_as_missing": True}, plain.round(0)), plain_probe.round(0))


def xgboost_cases():
    def case(name, params, label, kind="json", data=x, rows=probe, rounds=25):
        params = {"max_depth": 5, "seed": 3, "nthread": 1, "eta": 0.3, **params}
        train = xgboost.DMatrix(data, label, enable_categorical=True)
        booster = xgboost.train(params, train, rounds)
        files = {"model.json": {"format": "xgboost", "file": f"booster.{kind}"}, f"booster.{kind}": bytes(booster.save_raw(kind))}
        expected = booster.predict(xgboost.DMatrix(rows, enable_categorical=True))
        if params["objective"] == "multi:softmax":
            # We answer with the probabilities, of which the original's answer is the largest.
            booster.set_param({"objective": "multi:softprob"})
            expected = booster.predict(xgboost.DMatrix(rows, enable_categorical=True))
        write(f"xgboost_{name}", files, rows, expected, "bits")

    optimal, onehot = {"max_cat_to_onehot": 1}, {"max_cat_to_onehot": 1000}
    case("binary_json", {"objective": "binary:logistic", **optimal}, yes)
    case("binary_ubj", {"objective": "binary:logistic", **onehot}, yes, "ubj")
    case("logitraw", {"objective": "binary:logitraw", "base_score": 0.3}, yes, data=plain, rows=plain_probe)
    case("hinge", {"objective": "binary:hinge"}, yes, data=plain, rows=plain_probe)
    case("softprob", {"objective": "multi:softprob", "num_class": 3, **optimal}, three, "ubj")
    case("softmax", {"objective": "multi:softmax", "num_class": 3}, three)
    case("squarederror_large", {"objective": "reg:squarederror", "max_depth": 9, **optimal}, real)
    case("absoluteerror", {"objective": "reg:absoluteerror"}, real)
    case("logistic", {"objective": "reg:logistic"}, 1 / (1 + np.exp(-real)))
    case("poisson", {"objective": "count:poisson"}, counts)
    case("gamma", {"objective": "reg:gamma"}, positive)
    case("tweedie", {"objective": "reg:tweedie"}, counts, "ubj")
    case("dart", {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.4, **optimal}, yes)
    case("dart_softprob", {"objective": "multi:softprob", "num_class": 3, "booster": "dart", "rate_drop": 0.4}, three, "ubj")
    case("forest", {"objective": "binary:logistic", "num_parallel_tree": 7, "subsample": 0.6, "eta": 1}, yes, rounds=3)
    ranked = {"objective": "rank:pairwise", "lambdarank_num_pair_per_sample": 4, "lambdarank_pair_method": "mean"}
    data = xgboost.DMatrix(plain, three, qid=np.arange(ROWS) // 20)
    booster = xgboost.train({**ranked, "seed": 3, "nthread": 1}, data, 10)
    files = {"model.json": {"format": "xgboost", "file": "m.ubj"}, "m.ubj": bytes(booster.save_raw("ubj"))}
    write("xgboost_rank", files, plain_probe, booster.predict(xgboost.DMatrix(plain_probe)), "bits")

    # The scikit-learn wrapper answers with the best iteration.
    best = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=5, n_jobs=1, learning_rate=0.5)
    best.fit(plain[:400], yes[:400], eval_set=[(plain[400:], yes[400:])], verbose=False)
    assert best.best_iteration + 1 < best.get_booster().num_boosted_rounds()
    saved = FOLDER / "best.json"
    best.save_model(saved)
    files = {"model.json": {"format": "xgboost", "file": "m.json"}, "m.json": saved.read_bytes()}
    write("xgboost_best_iteration", files, plain_probe, best.predict_proba(plain_probe)[:, 1], "bits")


def sklearn_cases():
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "src/python"))
    from sklearn import compose, ensemble, impute, pipeline, preprocessing, tree
    from sklearn_trees import convert

    holes = probe[NUMBERS]

    def case(name, model, label, data=x[NUMBERS], rows=holes, compare=1e-12):
        model.fit(data, label)
        files = {"model.json": {"format": "sklearn_trees", "file": "trees.json"}, "trees.json": convert(model)}
        if hasattr(model, "predict_proba"):
            expected = model.predict_proba(rows)
            expected = expected[:, 1] if expected.shape[1] == 2 else expected
        elif hasattr(model, "decision_function"):
            expected = model.decision_function(rows)
        else:
            expected = model.predict(rows)
        write(f"sklearn_{name}", files, rows, expected, compare)

    seed = {"random_state": 3}
    case("decision_tree_classifier", tree.DecisionTreeClassifier(**seed), three)
    case("decision_tree_regressor", tree.DecisionTreeRegressor(max_depth=6, **seed), real)
    case("extra_tree_regressor", tree.ExtraTreeRegressor(**seed), real, plain, plain_probe)
    case("random_forest_binary", ensemble.RandomForestClassifier(30, **seed), yes)
    case("random_forest_multiclass", ensemble.RandomForestClassifier(30, min_samples_leaf=3, **seed), three)
    case("random_forest_regressor", ensemble.RandomForestRegressor(30, **seed), real)
    case("extra_trees_multiclass", ensemble.ExtraTreesClassifier(30, **seed), three)
    case("extra_trees_regressor", ensemble.ExtraTreesRegressor(30, max_depth=5, **seed), real)
    case("gradient_boosting_binary", ensemble.GradientBoostingClassifier(**seed), yes, plain, plain_probe)
    case("gradient_boosting_multiclass", ensemble.GradientBoostingClassifier(n_estimators=30, **seed), three, plain, plain_probe)
    exponential = ensemble.GradientBoostingClassifier(loss="exponential", init="zero", **seed)
    case("gradient_boosting_exponential", exponential, yes, plain, plain_probe)
    case("gradient_boosting_huber", ensemble.GradientBoostingRegressor(loss="huber", **seed), real, plain, plain_probe)
    case("hist_binary_categories", ensemble.HistGradientBoostingClassifier(categorical_features="from_dtype", **seed), yes, x, probe)
    case("hist_multiclass", ensemble.HistGradientBoostingClassifier(max_iter=40, **seed), three)
    case("hist_regressor", ensemble.HistGradientBoostingRegressor(**seed), real, compare="bits")
    case("hist_poisson", ensemble.HistGradientBoostingRegressor(loss="poisson", **seed), counts)
    case("isolation_forest", ensemble.IsolationForest(n_estimators=50, **seed), None, plain, plain_probe)
    case("isolation_forest_subsampled", ensemble.IsolationForest(n_estimators=50, max_features=2, **seed), None, plain, plain_probe)

    texts = x.assign(colour=x.colour.astype(object), town=x.town.astype(object))
    texts_probe = probe.assign(colour=probe.colour.astype(object), town=probe.town.astype(object).where(probe.town.notna(), "nowhere"))
    columns = compose.ColumnTransformer([
        ("scaled", pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler()), ["a", "b"]),
        ("between", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.MinMaxScaler(clip=True)), ["c"]),
        ("robust", preprocessing.RobustScaler(), ["d"]),
        ("hot", pipeline.make_pipeline(
            impute.SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        ), ["colour"]),
        ("codes", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["town"]),
    ])
    whole = pipeline.Pipeline([("columns", columns), ("forest", ensemble.RandomForestClassifier(40, **seed))])
    case("pipeline_raw_columns", whole, yes, texts, texts_probe)


lightgbm_cases()
sklearn_cases()
xgboost_cases()
