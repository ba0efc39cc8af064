"""Writes scikit-learn's tree models as JSON that Tidemill's tree engine reads (`"format": "sklearn_trees"`).

It runs in the user's own Python, where the model was unpickled: `convert(model)` gives a dict, or raises `Unsupported` for a
model that cannot be told exactly in this form. The form is described in docs/models.md.

Understood are DecisionTree*, ExtraTree*, RandomForest*, ExtraTrees*, GradientBoosting*, HistGradientBoosting*, IsolationForest,
and pipelines of SimpleImputer, StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, OrdinalEncoder, OneHotEncoder and
ColumnTransformer before one of them.
"""

import json
import math
import sys

import numpy as np

VERSION = 1


class Unsupported(Exception):
    """The model cannot be told exactly as trees over simple inputs; it is served through Python instead."""


# ---- inputs: what becomes of a column before the trees see it ----


class Number:
    """A column as a number, after some steps."""

    def __init__(self, column, steps=()):
        self.column, self.steps = column, tuple(steps)

    def then(self, *step):
        return Number(self.column, (*self.steps, list(step)))

    def used(self, inputs):
        if inputs.texts.get(self.column):
            raise Unsupported(f"column {self.column} is used as text and as a number")
        return {"column": self.column, "steps": list(self.steps)}


class Code(Number):
    """A column of categories as the position of its level, after some steps."""

    def __init__(self, column, levels, missing, unknown, steps=()):
        super().__init__(column, steps)
        self.levels, self.missing, self.unknown = levels, missing, unknown

    def then(self, *step):
        return Code(self.column, self.levels, self.missing, self.unknown, (*self.steps, list(step)))

    def used(self, inputs):
        texts = bool(self.levels) and all(isinstance(level, str) for level in self.levels)
        if inputs.texts.setdefault(self.column, texts) != texts:
            raise Unsupported(f"column {self.column} is used as text and as a number")
        codes = {"levels": self.levels, "missing": finite(self.missing), "unknown": finite(self.unknown)}
        return {"column": self.column, "codes": codes, "steps": list(self.steps)}


class Raw(Number):
    """A column as it comes; `missing` is the value that an imputer put in the place of missing ones, if one did."""

    def __init__(self, column, missing=None):
        super().__init__(column)
        self.missing = missing


class Inputs:
    """The columns of a request."""

    def __init__(self, model):
        count = model.n_features_in_
        names = getattr(model, "feature_names_in_", None)
        self.names = [f"x{i}" for i in range(count)] if names is None else [str(name) for name in names]
        self.texts = {}

    def positions(self, columns):
        """What a ColumnTransformer names: positions, names, a slice or a mask."""
        if isinstance(columns, slice):
            if any(isinstance(end, str) for end in (columns.start, columns.stop)):
                raise Unsupported("a ColumnTransformer with a slice of names")
            return list(range(len(self.names)))[columns]
        if isinstance(columns, (str, int, np.integer)):
            columns = [columns]
        columns = list(columns)
        if columns and all(isinstance(column, (bool, np.bool_)) for column in columns):
            return [position for position, chosen in enumerate(columns) if chosen]
        return [self.names.index(c) if isinstance(c, str) else int(c) % len(self.names) for c in columns]


def finite(value):
    """JSON has no NaN."""
    return None if value is None or math.isnan(value) else float(value)


def numbers(columns, *steps):
    """Applies numeric steps, which take one argument a column."""
    out = []
    for position, column in enumerate(columns):
        if isinstance(column, Raw):
            column = Number(column.column, [] if column.missing is None else [["impute", number(column.missing)]])
        for step in steps:
            if step is not None:
                name, *arguments = step
                column = column.then(name, *(float(np.asarray(argument)[position]) for argument in arguments))
        out.append(column)
    return out


def number(value):
    if isinstance(value, str):
        raise Unsupported(f"`{value}` in the place of missing numbers")
    return float(value)


def same(width, value):
    return np.full(width, value, dtype=np.float64)


def impute(step, columns, inputs):
    if step.add_indicator:
        raise Unsupported("SimpleImputer with add_indicator=True")
    if not (isinstance(step.missing_values, float) and math.isnan(step.missing_values)):
        raise Unsupported("SimpleImputer with missing_values other than NaN")
    if any(isinstance(v, float) and math.isnan(v) for v in step.statistics_):
        raise Unsupported("SimpleImputer over a column that was always empty")
    out = []
    for column, value in zip(columns, step.statistics_):
        if type(column) is Raw and column.missing is None:
            out.append(Raw(column.column, value if isinstance(value, str) else float(value)))
        else:
            out += numbers([column], ("impute", [number(value)]))
    return out


def standard(step, columns, inputs):
    mean = ("subtract", step.mean_) if step.with_mean else None
    return numbers(columns, mean, ("divide", step.scale_) if step.with_std else None)


def min_max(step, columns, inputs):
    clip = None
    if step.clip:
        low, high = step.feature_range
        clip = ("clip", same(len(columns), low), same(len(columns), high))
    return numbers(columns, ("multiply", step.scale_), ("add", step.min_), clip)


def max_abs(step, columns, inputs):
    return numbers(columns, ("divide", step.scale_))


def robust(step, columns, inputs):
    center = ("subtract", step.center_) if step.with_centering else None
    return numbers(columns, center, ("divide", step.scale_) if step.with_scaling else None)


def plain_levels(categories):
    """Levels as JSON, and the position of the missing one."""
    levels, missing = [], None
    for position, level in enumerate(categories):
        if level is None or (isinstance(level, float) and math.isnan(level)):
            missing = position
            levels.append(None)
        elif isinstance(level, (bool, np.bool_)):
            raise Unsupported("categories that are booleans")
        else:
            levels.append(level if isinstance(level, str) else float(level))
    return levels, missing


def codes(step, columns):
    if getattr(step, "infrequent_categories_", None) is not None and any(c is not None for c in step.infrequent_categories_):
        raise Unsupported("an encoder that joins infrequent categories")
    for column, categories in zip(columns, step.categories_):
        if not isinstance(column, Raw):
            raise Unsupported("an encoder after another step")
        levels, missing = plain_levels(categories)
        if column.missing is not None:
            known = column.missing in levels
            missing = levels.index(column.missing) if known else None
        yield column.column, levels, missing


def ordinal(step, columns, inputs):
    unknown = step.unknown_value if step.handle_unknown == "use_encoded_value" else math.nan
    out = []
    for column, levels, missing in codes(step, columns):
        if missing is not None and levels[missing] is None:
            missing_code = step.encoded_missing_value
        else:
            missing_code = unknown if missing is None else missing
        out.append(Code(column, [level for level in levels if level is not None], missing_code, unknown))
    return out


def one_hot(step, columns, inputs):
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(columns)
    out = []
    for (column, levels, missing), drop in zip(codes(step, columns), dropped):
        # The missing level, where there is one, is the last.
        known = [level for level in levels if level is not None]
        code = Code(column, known, -1 if missing is None else missing, -1)
        out += [code.then("equals", float(position)) for position in range(len(levels)) if position != drop]
    return out


def column_transformer(step, columns, inputs):
    if any(not (type(column) is Raw and column.missing is None) for column in columns):
        raise Unsupported("a ColumnTransformer after another step")
    out = []
    for name, transformer, chosen in step.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        part = [columns[position] for position in inputs.positions(chosen)]
        out += part if not part else apply(transformer, part, inputs)
    return out


def pipeline(step, columns, inputs):
    for _, inner in step.steps:
        columns = apply(inner, columns, inputs)
    return columns


TRANSFORMERS = {
    "SimpleImputer": impute,
    "StandardScaler": standard,
    "MinMaxScaler": min_max,
    "MaxAbsScaler": max_abs,
    "RobustScaler": robust,
    "OrdinalEncoder": ordinal,
    "OneHotEncoder": one_hot,
    "ColumnTransformer": column_transformer,
    "Pipeline": pipeline,
}


def apply(step, columns, inputs):
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return columns
    kind = type(step).__name__
    if kind == "FunctionTransformer" and (step.func is None or getattr(step.func, "func", None) is not None):
        # What HistGradientBoosting checks its numeric columns with.
        if step.func is None or step.func.func.__name__ == "check_array":
            return columns
    if kind not in TRANSFORMERS or not type(step).__module__.startswith("sklearn."):
        raise Unsupported(f"a step of type {kind}")
    return TRANSFORMERS[kind](step, columns, inputs)


# ---- trees ----


def largest(threshold):
    """A split of missing values from all others has an infinite threshold, which JSON has not."""
    return float(threshold) if math.isfinite(threshold) else math.copysign(sys.float_info.max, threshold)


def classic_tree(tree, value, output, features=None, cover=True):
    """One `sklearn.tree._tree.Tree`; `value` has a row of numbers a node."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    feature = tree.feature
    if features is not None:
        feature = np.where(feature >= 0, np.asarray(features)[np.maximum(feature, 0)], feature)
    value = np.asarray(value, dtype=np.float64).reshape(len(left), -1)
    return {
        "output": output,
        "left": left,
        "right": right,
        "feature": [max(int(f), 0) for f in feature],
        "threshold": [0.0 if child < 0 else largest(t) for t, child in zip(tree.threshold, left)],
        "missing_left": [int(m) for m in tree.missing_go_to_left],
        "value": value.tolist() if value.shape[1] > 1 else value[:, 0].tolist(),
        "cover": tree.weighted_n_node_samples.tolist(),
    }


def classifier_values(tree, classes):
    """Of two classes only the second is needed."""
    if tree.n_outputs != 1:
        raise Unsupported("several outputs")
    value = tree.value[:, 0, :classes]
    return value[:, 1] if classes == 2 else value


def averaged(model, trees):
    """A single tree, or the mean of several."""
    if model.n_outputs_ != 1:
        raise Unsupported("several outputs")
    if hasattr(model, "classes_"):
        classes = len(model.classes_)
        if classes < 2:
            raise Unsupported("a single class")
        values = [classifier_values(tree, classes) for tree in trees]
        base = [0.0] * (classes if classes > 2 else 1)
        task = classification(model)
    else:
        values, base, task = [tree.value[:, 0, 0] for tree in trees], [0.0], {"task": "regression"}
    divisor = len(trees) if hasattr(model, "estimators_") else None
    return {
        **task,
        "float": True,
        "base": base,
        "divisor": divisor,
        "link": {"name": "identity"},
        "trees": [classic_tree(tree, value, 0) for tree, value in zip(trees, values)],
    }


def classification(model):
    classes = [class_name(label) for label in model.classes_]
    return {"task": "binary" if len(classes) == 2 else "multiclass", "classes": classes}


def class_name(label):
    label = label.item() if isinstance(label, np.generic) else label
    return label if isinstance(label, str) else json.dumps(label)


LINKS = {
    "IdentityLink": {"name": "identity"},
    "LogLink": {"name": "exp"},
    "LogitLink": {"name": "sigmoid", "slope": 1.0},
    "HalfLogitLink": {"name": "sigmoid", "slope": 2.0},
    "MultinomialLogit": {"name": "softmax"},
}


def link_of(loss):
    name = type(loss.link).__name__
    if name not in LINKS:
        raise Unsupported(f"a loss with {name}")
    return LINKS[name]


def boosted(model):
    task = classification(model) if hasattr(model, "classes_") else {"task": "regression"}
    if not isinstance(model.init_, str) and type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor"):
        raise Unsupported("GradientBoosting that starts from another model")
    first = np.zeros((1, model.n_features_in_), dtype=np.float32)
    trees = []
    for stage in model.estimators_:
        for output, tree in enumerate(stage):
            value = model.learning_rate * tree.tree_.value[:, 0, 0]
            trees.append(classic_tree(tree.tree_, value, output))
    link = link_of(model._loss) if hasattr(model, "classes_") else LINKS["IdentityLink"]
    return {
        **task,
        "float": True,
        "base": [float(v) for v in np.atleast_1d(model._raw_predict_init(first)[0])],
        "link": link,
        "trees": trees,
    }


def histogram_tree(predictor, output, known, map_of):
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    missing_left = nodes["missing_go_to_left"].astype(int)
    sets = {}
    for place in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][place]]
        chosen = members(bits)
        if missing_left[place]:
            # A category that training did not know goes where missing values go.
            chosen = chosen | (set(range(256)) - members(known[map_of[nodes["feature_idx"][place]]]))
        sets[str(int(place))] = sorted(chosen)
    return {
        "output": output,
        "left": [-1 if end else int(child) for child, end in zip(nodes["left"], leaf)],
        "right": [-1 if end else int(child) for child, end in zip(nodes["right"], leaf)],
        "feature": nodes["feature_idx"].astype(int).clip(0).tolist(),
        "threshold": [largest(t) for t in nodes["num_threshold"]],
        "missing_left": missing_left.tolist(),
        "value": nodes["value"].tolist(),
        "cover": nodes["count"].astype(float).tolist(),
        "sets": sets,
    }


def members(bits):
    return {32 * word + bit for word, value in enumerate(bits) for bit in range(32) if int(value) >> bit & 1}


def histogram(model):
    task = classification(model) if hasattr(model, "classes_") else {"task": "regression"}
    known, map_of = model._bin_mapper.make_known_categories_bitsets()
    trees = [
        histogram_tree(predictor, output, known, map_of)
        for stage in model._predictors
        for output, predictor in enumerate(stage)
    ]
    return {
        **task,
        "float": False,
        "base": [float(v) for v in np.ravel(model._baseline_prediction)],
        "link": link_of(model._loss),
        "trees": trees,
    }


def isolation(model):
    """Answers as `decision_function` does: negative for outliers."""
    from sklearn.ensemble._iforest import _average_path_length

    trees = []
    subsampled = model._max_features != model.n_features_in_
    for number_of, (tree, features) in enumerate(zip(model.estimators_, model.estimators_features_)):
        depth = model._decision_path_lengths[number_of] + model._average_path_length_per_tree[number_of] - 1.0
        trees.append(classic_tree(tree.tree_, depth, 0, features if subsampled else None))
    denominator = len(trees) * float(_average_path_length([model._max_samples])[0])
    if denominator == 0:
        raise Unsupported("an IsolationForest of single rows")
    return {
        "task": "regression",
        "float": True,
        "base": [0.0],
        "link": {"name": "isolation", "denominator": denominator, "offset": float(model.offset_)},
        "trees": trees,
    }


def ensemble(model):
    kind = type(model).__name__
    if kind in ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"):
        return averaged(model, [model.tree_])
    if kind in ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"):
        return averaged(model, [tree.tree_ for tree in model.estimators_])
    if kind in ("GradientBoostingClassifier", "GradientBoostingRegressor"):
        return boosted(model)
    if kind in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return histogram(model)
    if kind == "IsolationForest":
        return isolation(model)
    raise Unsupported(f"a model of type {kind}")


def convert(model):
    """The dict that is the JSON of a fitted model."""
    steps, last = [], model
    if type(model).__name__ == "Pipeline":
        steps, last = [step for _, step in model.steps[:-1]], model.steps[-1][1]
    if not type(last).__module__.startswith("sklearn."):
        raise Unsupported(f"a model of {type(last).__module__}")
    trees = ensemble(last)
    inputs = Inputs(model)
    columns = [Raw(position) for position in range(len(inputs.names))]
    preprocessor = getattr(last, "_preprocessor", None)
    if preprocessor is not None:
        if steps:
            raise Unsupported("HistGradientBoosting that encodes categories, after other steps")
        steps = [preprocessor]
    for step in steps:
        columns = apply(step, columns, inputs)
    read = [column.used(inputs) for column in numbers(columns)]
    features = [
        {"name": name, "kind": "categorical" if inputs.texts.get(position) else "numeric"}
        for position, name in enumerate(inputs.names)
    ]
    return {"format": "sklearn_trees", "version": VERSION, "features": features, "inputs": read, **trees}


def main():
    """sklearn_trees.py MODEL OUT: unpickles MODEL and writes OUT. Unpickling runs code of the file: only files that you trust."""
    import joblib

    model, out = sys.argv[1:]
    try:
        converted = convert(joblib.load(model))
    except Unsupported as error:
        print(f"error: the model cannot be told as trees: {error}", file=sys.stderr)
        sys.exit(3)
    with open(out, "w") as file:
        json.dump(converted, file, allow_nan=False)


if __name__ == "__main__":
    main()
