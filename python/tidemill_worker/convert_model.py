"""Turns a model that Python loads into one that Tidemill's tree engine runs, with samples of the original's answers to compare with.

Usage: convert_model.py CONFIG OUT. CONFIG is what a worker is given, as JSON; OUT a folder, which gets `model.json`, the model's file and
`samples.json`. Prints {"converted": …} or {"refused": "why"}. Unpickling runs code of the file, which is why this is a process of its own.
"""

import json
import math
import os
import random
import sys

from tidemill_worker import limits, loading, mlflow_model, sklearn_trees, values
from tidemill_worker.convert import Refused
from tidemill_worker.sklearn_trees import Unsupported

SAMPLES = 256


def estimator_of(model, loaded):
    """What answers inside, and the method that is asked."""
    if model["kind"] == "estimator":
        return loading.unpickle(model["file"]), model.get("method") or "predict"
    flavors = model["flavors"]
    pyfunc = flavors.get("python_function") or {}
    path = lambda name, usual: os.path.join(model["folder"], name or usual)
    if "sklearn" in flavors:
        name = flavors["sklearn"].get("pickled_model") or pyfunc.get("model_path")
        return mlflow_model.opened(path(name, "model.pkl"), flavors["sklearn"]), pyfunc.get("predict_fn") or "predict"
    if "lightgbm" in flavors:
        data = path(flavors["lightgbm"].get("data") or pyfunc.get("data"), "model.lgb")
        if data.endswith((".pkl", ".skops")):
            return mlflow_model.opened(data, flavors["lightgbm"]), "predict"
        import lightgbm

        return lightgbm.Booster(model_file=data), "predict"
    if "xgboost" in flavors:
        import xgboost

        flavor = flavors["xgboost"]
        kind = (flavor.get("model_class") or "xgboost.core.Booster").rpartition(".")[2]
        found = getattr(xgboost, kind)()
        found.load_model(path(flavor.get("data") or pyfunc.get("data"), "model.xgb"))
        return found, "predict"
    raise Unsupported(f"an MLflow model of {', '.join(flavors)}")


class Converted:
    """A model in a form of the tree engine."""

    def __init__(self, format, file, content, columns, classes=None, scores=None):
        self.format, self.file, self.content = format, file, content
        #: One a feature: its name, and values near which the trees decide; texts for categories.
        self.columns = columns
        #: The classes of a classifier as it names them itself, or None.
        self.classes = None if classes is None else values.np.asarray(classes)
        #: The probabilities (or numbers) of rows, as the original gives them.
        self.scores = scores


def convert(estimator):
    module = type(estimator).__module__
    if module.startswith("xgboost."):
        return of_xgboost(estimator)
    if module.startswith("lightgbm."):
        return of_lightgbm(estimator)
    return of_sklearn(estimator)


def of_sklearn(estimator):
    told = sklearn_trees.convert(estimator)
    columns = [(feature["name"], set()) for feature in told["features"]]
    for i, read in enumerate(told["inputs"]):
        around = columns[read["column"]][1]
        codes = read.get("codes")
        if codes:
            around.update(level for level in codes["levels"] if level is not None)
            continue
        for tree in told["trees"]:
            for left, feature, threshold in zip(tree["left"], tree["feature"], tree["threshold"]):
                if left >= 0 and feature == i and abs(threshold) < 1e30:
                    around.add(_before(read["steps"], threshold))
    classes = getattr(estimator, "classes_", None)
    scores = estimator.predict_proba if classes is not None else estimator.predict
    return Converted("sklearn_trees", "trees.json", json.dumps(told), columns, classes, scores)


def _before(steps, value):
    """What a column was before the steps that made `value` of it."""
    back = {
        "subtract": lambda v, a: v + a,
        "add": lambda v, a: v - a,
        "divide": lambda v, a: v * a,
        "multiply": lambda v, a: v / a if a else v,
    }
    for name, *arguments in reversed(steps):
        if name in back:
            value = back[name](value, *arguments)
    return value


def of_xgboost(estimator):
    import xgboost

    classes = scores = None
    booster = estimator
    if not isinstance(estimator, xgboost.Booster):
        missing = estimator.missing
        if missing is not None and not math.isnan(missing):
            raise Unsupported(f"missing={missing}")
        booster = estimator.get_booster()
        if isinstance(estimator, xgboost.XGBClassifier):
            objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
            if objective not in ("binary:logistic", "multi:softprob"):
                raise Unsupported(f"a classifier with the objective {objective}")
            classes = estimator.classes_
            if list(classes) != list(range(len(classes))):
                raise Unsupported("classes that are not 0, 1, …")
            scores = estimator.predict_proba
        elif isinstance(estimator, xgboost.XGBRanker):
            raise Unsupported("an XGBRanker")
        best = booster.attr("best_iteration")
        if best is not None:
            # The wrapper answers with the rounds up to the best.
            booster = booster[: int(best) + 1]
    if booster.feature_types and "c" in booster.feature_types:
        raise Unsupported("XGBoost's own categories")
    count = booster.num_features()
    names = booster.feature_names or [f"x{i}" for i in range(count)]
    around = {f"f{i}": set() for i in range(count)} | {name: set() for name in names}
    for dump in booster.get_dump(dump_format="json"):
        todo = [json.loads(dump)]
        while todo:
            node = todo.pop()
            if "split" in node and isinstance(node.get("split_condition"), (int, float)):
                around.setdefault(node["split"], set()).add(float(node["split_condition"]))
            todo.extend(node.get("children", ()))
    content = bytes(booster.save_raw("json"))
    columns = [(name, around[name]) for name in names]
    if scores is None:
        if isinstance(estimator, xgboost.Booster):
            scores = lambda rows: estimator.predict(xgboost.DMatrix(rows))
        else:
            scores = estimator.predict
    return Converted("xgboost", "booster.json", content, columns, classes, scores)


def of_lightgbm(estimator):
    import lightgbm

    classes = None
    scores = estimator.predict
    booster = estimator
    best = None
    if not isinstance(estimator, lightgbm.Booster):
        booster = estimator.booster_
        # What the wrapper answers with, where it stopped early.
        best = estimator.best_iteration_ or None
        if isinstance(estimator, lightgbm.LGBMClassifier):
            classes = estimator.classes_
            scores = estimator.predict_proba
            objective = estimator.objective_
            if objective not in ("binary", "multiclass", "softmax"):
                raise Unsupported(f"a classifier with the objective {objective}")
    if getattr(booster, "pandas_categorical", None):
        raise Unsupported("LightGBM's categories of pandas")
    names = booster.feature_name()
    around = {name: set() for name in names}
    todo = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while todo:
        node = todo.pop()
        if isinstance(node.get("threshold"), (int, float)):
            around[names[node["split_feature"]]].add(float(node["threshold"]))
        elif "threshold" in node:
            raise Unsupported("LightGBM's categorical splits")
        todo.extend(node[side] for side in ("left_child", "right_child") if side in node)
    content = booster.model_to_string(num_iteration=best)
    return Converted("lightgbm", "booster.txt", content, [(name, around[name]) for name in names], classes, scores)


def sample(columns, missing, seed):
    """Rows near and far from where the trees decide."""
    draw = random.Random(seed)

    def one(around):
        if missing and draw.random() < 0.1:
            return math.nan
        if not around:
            return draw.gauss(0, 1) * 10 ** draw.uniform(-2, 3)
        middle = draw.choice(around)
        if isinstance(middle, str):
            return middle
        kind = draw.random()
        if kind < 0.3:
            return middle
        if kind < 0.6:
            return math.nextafter(middle, draw.choice((-math.inf, math.inf)))
        return middle + draw.gauss(0, 1) * (abs(middle) + 1) * 10 ** draw.uniform(-3, 1)

    sorted_ones = [sorted(around, key=str) for _, around in columns]
    return [[one(around) for around in sorted_ones] for _ in range(SAMPLES)]


def typed(rows, inputs):
    """Whole numbers where the signature wants them, and no more digits than it has."""
    if len(inputs) == 1 and len(inputs[0]["shape"]) == 2:
        kinds = [inputs[0]["datatype"]] * len(rows[0])
    else:
        kinds = [spec["datatype"] for spec in inputs]

    def one(value, kind):
        if kind == "BYTES" or isinstance(value, float) and math.isnan(value):
            return value
        if kind == "BOOL":
            return value > 0
        if "INT" in kind:
            return max(-1e9, min(1e9, round(value))) if kind[0] == "I" else 0
        return float(values.np.float32(value)) if kind == "FP32" else value

    return [[one(value, kind) for value, kind in zip(row, kinds)] for row in rows]


def table_of(rows, model, names, inputs):
    """Rows as the model is asked with them when it is served."""
    if getattr(model, "table", False) or (getattr(model, "columns", False) and not model.matrix):
        frame = loading.pandas_or_refuse().DataFrame(rows, columns=names)
        kinds = {spec["name"]: values.DTYPES[spec["datatype"]] for spec in inputs if spec["datatype"] != "BYTES"}
        return frame.astype({name: kind for name, kind in kinds.items() if name in frame.columns})
    if len(inputs) == 1 and inputs[0]["datatype"] == "FP32":
        return values.np.asarray(rows, dtype="f4")
    return values.np.asarray(rows, dtype=None if any(isinstance(v, str) for row in rows for v in row) else "f8")


def features_of(interface, columns, guessed):
    """The interface's inputs, if the trees' features are these. `guessed`: what is known of them are their names."""
    inputs = interface["inputs"]
    named = [spec["name"] for spec in inputs] == [name for name, _ in columns]
    if not inputs or guessed and named:
        texts = lambda around: any(isinstance(value, str) for value in around)
        return [{"name": name, "datatype": "BYTES" if texts(around) else "FP64", "shape": [-1]} for name, around in columns]
    if any(spec.get("optional") for spec in inputs):
        raise Unsupported("inputs that may be left out")
    if len(inputs) == 1 and len(inputs[0]["shape"]) == 2:
        if inputs[0]["datatype"] not in ("FP64", "FP32"):
            raise Unsupported(f"a matrix of {inputs[0]['datatype']}")
        return [dict(inputs[0], shape=[-1, len(columns)])]
    if any(len(spec["shape"]) != 1 for spec in inputs) or len(inputs) != len(columns):
        raise Unsupported("a signature that is not one column a feature")
    if [spec["name"] for spec in inputs] != [name for name, _ in columns]:
        raise Unsupported("a signature whose columns are not the features that the model names, in their order")
    for spec, (name, around) in zip(inputs, columns):
        texts = any(isinstance(value, str) for value in around)
        if (spec["datatype"] == "BYTES") != texts:
            raise Unsupported(f"column `{name}`, which is {spec['datatype']} in the signature")
    return inputs


def main(config, out):
    limits.apply({"memory_mib": config.get("memory_mib"), "environment": config.get("environment")})
    loaded = loading.load(config)
    estimator, method = estimator_of(config["model"], loaded)
    converted = convert(estimator)
    np = values.np
    guessed = config["model"]["kind"] == "estimator" and not config["model"].get("inputs")
    inputs = features_of(loaded.interface, converted.columns, guessed)
    if len(loaded.interface["outputs"]) > 1:
        raise Unsupported("several outputs")
    if converted.classes is not None and method == "predict":
        answer = "labels"
        if not hasattr(estimator, "predict_proba"):
            answer = "scores"
    elif converted.classes is not None and method == "predict_proba":
        answer = "probabilities"
    elif method == "predict" and type(estimator).__name__ != "IsolationForest":
        answer = "scores"
    elif method == "decision_function" and type(estimator).__name__ == "IsolationForest":
        answer, converted.scores = "scores", estimator.decision_function
    else:
        raise Unsupported(f"the method `{method}` of a `{type(estimator).__name__}`")
    names = [name for name, _ in converted.columns]
    for missing in (True, False):
        rows = typed(sample(converted.columns, missing, 1), inputs)
        try:
            table = table_of(rows, loaded, names, inputs)
            answers = np.asarray(loaded.function(table))
            scores = np.asarray(converted.scores(table), dtype="f8")
            break
        except Exception as error:
            if not missing:
                raise Unsupported(f"samples that the original does not answer: {error}") from None
    if answers.ndim > 1 and answers.shape[1] == 1:
        answers = answers[:, 0]
    output = dict((loaded.interface["outputs"] or [{"name": "output"}])[0])
    output["labels"] = []
    if answer == "labels":
        kind = converted.classes.dtype
        datatype = "BYTES" if kind.kind in "OUS" else values.NAMES.get(kind)
        if datatype is None:
            raise Unsupported(f"classes of type {kind}")
        output |= {"datatype": datatype, "shape": [-1]}
    elif answer == "probabilities":
        names_of = [str(label) for label in converted.classes]
        output |= {"datatype": "FP64", "shape": [-1, len(names_of)], "labels": names_of}
    else:
        output |= {"datatype": "FP64", "shape": [-1] if scores.ndim == 1 else [-1, scores.shape[1]]}
    manifest = {"format": converted.format, "file": converted.file}
    if converted.format != "sklearn_trees":
        manifest["features"] = [{"name": name, "kind": "numeric"} for name in names]
        if converted.classes is not None:
            manifest["classes"] = [sklearn_trees.class_name(label) for label in converted.classes]
            manifest["task"] = "binary" if len(converted.classes) == 2 else "multiclass"
    manifest["serve"] = {"answer": answer, "inputs": inputs, "output": output}
    if answer == "labels":
        manifest["serve"]["labels"] = [sklearn_trees.class_name(label) for label in converted.classes]
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, converted.file), "wb") as file:
        file.write(converted.content if isinstance(converted.content, bytes) else converted.content.encode())
    with open(os.path.join(out, "model.json"), "w") as file:
        json.dump(manifest, file)
    cell = lambda value: None if isinstance(value, float) and math.isnan(value) else value
    samples = {
        "rows": [[cell(value) for value in row] for row in rows],
        "answers": answers.tolist(),
        "scores": scores.reshape(len(rows), -1).tolist(),
    }
    with open(os.path.join(out, "samples.json"), "w") as file:
        json.dump(samples, file)
    return {"converted": type(estimator).__name__, "rows": len(rows), "missing": missing}


if __name__ == "__main__":
    sys.stdout, told = sys.stderr, sys.stdout
    with open(sys.argv[1]) as file:
        asked = json.load(file)
    try:
        outcome = main(asked, sys.argv[2])
    except (Refused, Unsupported) as why:
        outcome = {"refused": str(why)}
    json.dump(outcome, told)
