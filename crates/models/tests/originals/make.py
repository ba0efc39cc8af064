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


def write(name, files, frame, expected, compare, contributions=None):
    """One case. `frame` holds the columns as a client would send them; `contributions` are the library's own, for some rows."""
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
    case = {"columns": columns, "expected": expected.tolist(), "compare": compare}
    if contributions is not None:
        case["contributions"] = np.asarray(contributions, dtype=np.float64).reshape(len(contributions), -1).tolist()
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
        write(f"lightgbm_{name}", files, rows, booster.predict(rows), "bits", booster.predict(rows, pred_contrib=True))

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
        contributions = booster.predict(xgboost.DMatrix(rows, enable_categorical=True), pred_contribs=True)
        write(f"xgboost_{name}", files, rows, expected, "bits", contributions)

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
    sys.path.insert(0, str(pathlib.Path(__file__).parents[4] / "python/tidemill_worker"))
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


def onnx_cases():
    import onnx
    import onnxmltools
    import onnxruntime
    import skl2onnx
    from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn import cluster, compose, ensemble, impute, linear_model, naive_bayes, neighbors, neural_network, pipeline
    from sklearn import preprocessing, svm, tree

    # skl2onnx 1.20 hands NumPy's numbers and booleans to ONNX 1.23, which takes only Python's integers.
    make_attribute = onnx.helper.make_attribute

    def plain_attribute(key, value, *rest, **named):
        if isinstance(value, list):
            value = [item.item() if isinstance(item, np.generic) else item for item in value]
            value = [int(item) if isinstance(item, bool) else item for item in value]
        return make_attribute(key, value, *rest, **named)

    onnx.helper.make_attribute = plain_attribute

    # What `float` holds, so that rounding does not decide which way a row goes.
    data, rows = plain.astype(np.float32).astype(float), plain_probe.astype(np.float32).astype(float)
    holes = probe[NUMBERS].astype(np.float32).astype(float)
    features = [{"name": name, "kind": "numeric"} for name in NUMBERS]
    matrix = [("x", FloatTensorType([None, 4]))]

    def answers(model, rows):
        if hasattr(model, "predict_proba"):
            given = model.predict_proba(rows)
            return given[:, 1] if given.shape[1] == 2 else given
        return model.decision_function(rows) if hasattr(model, "decision_function") else model.predict(rows)

    def case(name, model, label, data=data, rows=rows, compare=1e-6, types=matrix, manifest={"features": features}, through=None, **options):
        model.fit(data, label)
        zipmap = {} if not hasattr(model, "predict_proba") else {"options": {id(model): {"zipmap": options.pop("zipmap", False)}}}
        onnx = skl2onnx.convert_sklearn(model, initial_types=types, target_opset={"": 18, "ai.onnx.ml": 3}, **zipmap, **options)
        files = {"model.json": {"format": "onnx", "file": "m.onnx", **manifest}, "m.onnx": onnx.SerializeToString()}
        expected = answers(model, rows)
        if through:
            session = through.InferenceSession(onnx.SerializeToString())
            expected = session.run(["probabilities"], {"x": rows.to_numpy(dtype=np.float32)})[0][:, 1]
        write(f"onnx_{name}", files, rows, expected, compare)

    def boosted(name, model, label, convert, compare=1e-6):
        model.fit(data.to_numpy(), label)
        onnx = convert(model, initial_types=[("x", MlFloat([None, 4]))])
        files = {"model.json": {"format": "onnx", "file": "m.onnx", "features": features}, "m.onnx": onnx.SerializeToString()}
        write(f"onnx_{name}", files, rows, answers(model, rows.to_numpy()), compare)

    seed, scaled = {"random_state": 3}, preprocessing.StandardScaler
    case("decision_tree", tree.DecisionTreeClassifier(max_depth=8, **seed), three)
    case("random_forest_zipmap", ensemble.RandomForestClassifier(25, **seed), np.array(["low", "mid", "high"])[three], zipmap=True)
    case("random_forest_binary", ensemble.RandomForestClassifier(25, **seed), yes, zipmap=True)
    case("random_forest_regressor", ensemble.RandomForestRegressor(25, **seed), real, compare=1e-5)
    case("extra_trees", ensemble.ExtraTreesClassifier(25, **seed), three)
    case("gradient_boosting", ensemble.GradientBoostingClassifier(**seed), yes)
    case("gradient_boosting_multiclass", ensemble.GradientBoostingClassifier(n_estimators=20, **seed), three)
    case("gradient_boosting_regressor", ensemble.GradientBoostingRegressor(**seed), real, compare=1e-5)
    case("hist_binary", ensemble.HistGradientBoostingClassifier(max_iter=30, **seed), yes, data=x[NUMBERS].astype(np.float32), rows=holes)
    case("hist_regressor", ensemble.HistGradientBoostingRegressor(max_iter=30, **seed), real, rows=holes, compare=1e-5)
    boosted("lightgbm", lightgbm.LGBMClassifier(n_estimators=30, verbosity=-1, n_jobs=1), yes, onnxmltools.convert_lightgbm)
    boosted("lightgbm_multiclass", lightgbm.LGBMClassifier(n_estimators=15, verbosity=-1, n_jobs=1), three, onnxmltools.convert_lightgbm)
    boosted("lightgbm_regressor", lightgbm.LGBMRegressor(n_estimators=30, verbosity=-1, n_jobs=1), real, onnxmltools.convert_lightgbm, 1e-5)
    boosted("xgboost", xgboost.XGBClassifier(n_estimators=30, n_jobs=1), yes, onnxmltools.convert_xgboost)
    boosted("xgboost_multiclass", xgboost.XGBClassifier(n_estimators=15, n_jobs=1), three, onnxmltools.convert_xgboost)
    boosted("xgboost_regressor", xgboost.XGBRegressor(n_estimators=30, n_jobs=1), real, onnxmltools.convert_xgboost, 1e-5)
    case("isolation_forest", ensemble.IsolationForest(n_estimators=40, **seed), None, compare=1e-5)
    imputed = pipeline.make_pipeline(impute.SimpleImputer(), scaled(), linear_model.LogisticRegression())
    case("imputed_scaled_logistic", imputed, three, data=x[NUMBERS].astype(np.float32), rows=holes)
    case("mlp", pipeline.make_pipeline(scaled(), neural_network.MLPClassifier(hidden_layer_sizes=(20, 10), max_iter=300, **seed)), three)
    case("mlp_regressor", neural_network.MLPRegressor(hidden_layer_sizes=(15,), max_iter=500, **seed), real, compare=1e-5)
    case("svm", pipeline.make_pipeline(scaled(), svm.SVC(probability=True, **seed)), yes, compare=2e-6)
    case("svr", pipeline.make_pipeline(scaled(), svm.SVR()), real, compare=1e-5)
    case("naive_bayes", naive_bayes.GaussianNB(), three, compare=2e-6)
    case("linear", linear_model.LinearRegression(), real, compare=1e-5)
    case("neighbours", neighbors.KNeighborsClassifier(7), three)
    # Scaled in `float` by ONNX and in `double` by scikit-learn, so that rows near a threshold go different ways: the original is the ONNX file.
    case("scaled_trees", pipeline.make_pipeline(scaled(), ensemble.RandomForestClassifier(20, max_depth=5, **seed)), yes, through=onnxruntime)

    # Raw columns: one tensor a column, texts among them.
    raw = data.assign(colour=rng.choice(["red", "green", "blue"], ROWS), size=rng.integers(0, 4, ROWS))
    raw_rows = raw.iloc[:PROBES].copy()
    raw_rows.loc[raw_rows.index[:9], "colour"] = "unseen"
    columns = compose.ColumnTransformer([
        ("numbers", scaled(), NUMBERS),
        ("texts", preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["colour"]),
        ("sizes", "passthrough", ["size"]),
    ])
    types = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    types += [("colour", StringTensorType([None, 1])), ("size", Int64TensorType([None, 1]))]
    whole = pipeline.make_pipeline(columns, linear_model.LogisticRegression(max_iter=1000))
    case("raw_columns", whole, yes, raw, raw_rows, types=types, manifest={}, zipmap=True)


lightgbm_cases()
sklearn_cases()
onnx_cases()
xgboost_cases()
