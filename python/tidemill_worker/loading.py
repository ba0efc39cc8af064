"""Loads what a worker serves: a function or class of the user's, a pickled estimator, an MLflow model. Each becomes a `Model`."""

import dataclasses
import enum
import importlib
import importlib.util
import inspect
import os
import sys
import types
import typing
import warnings

from tidemill_worker import values
from tidemill_worker.values import BadInput


class Refused(Exception):
    """It cannot be loaded as it is; the message says why, without a traceback."""


class Call:
    """A call as it came."""

    __slots__ = ("id", "described", "body", "tensors", "content_type", "parameters", "outputs", "request_id", "stream")

    def __init__(self, id, flags, meta, body, tensors_flag, stream_flag):
        self.id = id
        self.tensors = bool(flags & tensors_flag)
        self.stream = bool(flags & stream_flag)
        self.described = meta.get("t", ())
        self.body = body
        self.content_type = meta.get("c", "application/json")
        self.parameters = meta.get("p") or {}
        self.outputs = meta.get("o") or ()
        self.request_id = meta.get("r", "")


class Model:
    """What answers: `arguments` makes (args, kwargs) of a call, `function` is called with them, `named` names what it gives."""

    def __init__(self, function, interface, closer=None):
        self.function = function
        self.interface = {"platform": "python", "inputs": [], "outputs": [], **interface}
        self.closer = closer
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self.interface["decoupled"] = self.streams
        self.declared = {spec["name"]: spec["datatype"] for spec in self.interface["outputs"]}
        self.output_names = [spec["name"] for spec in self.interface["outputs"]]

    def arguments(self, call):
        raise NotImplementedError

    def named(self, result):
        """[(name, value)] of what it gave."""
        if isinstance(result, dict):
            return list(result.items())
        if type(result).__name__ == "DataFrame" and hasattr(result, "columns"):
            return [(str(column), result[column]) for column in result.columns]
        if isinstance(result, tuple) and len(result) > 1:
            names = self.output_names
            if len(names) != len(result):
                names = [f"output_{i}" for i in range(len(result))]
            return list(zip(names, result))
        if isinstance(result, tuple) and result:
            result = result[0]
        if dataclasses.is_dataclass(result) or hasattr(result, "model_dump"):
            return list(values.jsonable(result).items())
        return [(self.output_names[0] if self.output_names else "output", result)]


def load(config):
    """The model that `config["model"]` describes."""
    folder = config["folder"]
    if folder:
        sys.path.insert(0, folder)
        os.chdir(folder)
    model = config["model"]
    loaders = {"function": _function, "estimator": _estimator, "mlflow": _mlflow}
    return loaders[model["kind"]](model)


# A function, or a class


def _function(model):
    target = model["target"]
    name, _, attribute = target.partition(":")
    if name.endswith(".py"):
        name = name[:-3]
    module = importlib.import_module(name.strip("/").replace("/", "."))
    found = module
    owner = None
    for part in attribute.split("."):
        if inspect.isclass(found):
            # Made once: this is where a model is loaded.
            found = owner = found()
        try:
            found = getattr(found, part)
        except AttributeError:
            known = [n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n, None))]
            raise Refused(f"`{target}`: there is no `{part}` there; callable are: {', '.join(known) or 'none'}") from None
    settings = dict(getattr(found, "__tidemill__", {}))
    if inspect.isclass(found):
        owner = found()
        for method in ("predict", "__call__"):
            if callable(getattr(owner, method, None)):
                found = getattr(owner, method)
                break
        else:
            raise Refused(f"`{target}` is a class without `predict` or `__call__`; name the method: `{target}.METHOD`")
    if not callable(found):
        raise Refused(f"`{target}` is a `{type(found).__name__}`, which cannot be called; name a function or a class")
    settings.update(getattr(found, "__tidemill__", {}))
    settings.update(model.get("settings") or {})
    closer = getattr(owner, "close", None) if owner is not None else None
    function = found
    # An object with an asynchronous or generating `__call__` shows that only there.
    if not inspect.isroutine(found) and hasattr(type(found), "__call__"):
        function = found.__call__
    return FunctionModel(function, settings, closer)


def _specs(declared):
    specs = []
    items = declared.items() if isinstance(declared, dict) else [(spec["name"], spec) for spec in declared]
    for name, spec in items:
        if isinstance(spec, dict):
            datatype, shape = spec["datatype"], spec.get("shape", [-1])
        elif isinstance(spec, str):
            datatype, shape = spec, [-1]
        else:
            datatype, shape = spec
        if datatype not in values.FIXED and datatype != "BYTES":
            known = ", ".join([*values.FIXED, "BYTES"])
            raise Refused(f"`{name}` has the datatype `{datatype}`; expected one of {known}")
        optional = bool(isinstance(spec, dict) and spec.get("optional"))
        specs.append({"name": name, "datatype": datatype, "shape": list(shape), "optional": optional})
    return specs


def _is_array(annotation):
    return values.np is not None and _bare(annotation) is values.np.ndarray


def _bare(annotation):
    """`annotation` without `Annotated` and type arguments."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def _is_frame(annotation):
    bare = _bare(annotation)
    return getattr(bare, "__name__", "") == "DataFrame" and getattr(bare, "__module__", "").startswith("pandas")


#: How MLflow's scoring protocol writes its inputs.
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def _form(body, names=()):
    """(inputs, params) of a body in one of MLflow's forms; None if it is in none."""
    if not isinstance(body, dict):
        return None
    found = [form for form in _FORMS if form in body and form not in names]
    if len(found) != 1 or set(body) - {found[0], "params"}:
        return None
    return body[found[0]], body.get("params") or {}


class FunctionModel(Model):
    """A user's function. What it takes stands in its signature."""

    def __init__(self, function, settings, closer):
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception:
            hints = dict(getattr(function, "__annotations__", {}))
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self.parameters = [p for p in parameters if p.kind in positional]
        self.takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self.annotations = {p.name: hints.get(p.name, p.annotation) for p in self.parameters}
        self.required = [p.name for p in self.parameters if p.default is inspect.Parameter.empty]
        frames = [p.name for p in self.parameters if _is_frame(self.annotations[p.name])]
        arrays = [p.name for p in self.parameters if _is_array(self.annotations[p.name])]
        self.frame = frames[0] if frames else None
        inputs = _specs(settings.get("inputs") or {})
        outputs = _specs(settings.get("outputs") or {})
        tensors = bool(frames or arrays or inputs)
        interface = {
            "inputs": inputs,
            "outputs": outputs,
            "batches": bool(settings.get("batch")) and tensors,
            "columns": self.frame is not None,
            # A body is always understood: JSON names the arguments.
            "body": True,
        }
        super().__init__(function, interface, closer)
        self.takes_tensors = tensors

    def arguments(self, call):
        given = self._of_tensors(call) if call.tensors else self._of_body(call)
        for name, value in call.parameters.items():
            if name not in given and any(p.name == name for p in self.parameters):
                given[name] = convert(value, self.annotations[name], name)
        self._check(given)
        return (), given

    def _of_tensors(self, call):
        if self.frame is not None:
            return {self.frame: frame_of(values.decode(call.described, call.body))}
        arrays = values.decode(call.described, call.body)
        names = {p.name for p in self.parameters}
        if self.takes_any or set(arrays) <= names:
            return {name: self._plain(name, array) for name, array in arrays.items()}
        if len(arrays) == 1 and len(self.required) <= 1 and self.parameters:
            (array,) = arrays.values()
            name = self.required[0] if self.required else self.parameters[0].name
            return {name: self._plain(name, array)}
        unknown = sorted(set(arrays) - names)
        raise BadInput(f"the function takes no `{unknown[0]}`; it takes {self._takes()}")

    def _plain(self, name, array):
        """A function of plain values that is asked with a tensor gets the element, or the list."""
        annotation = self.annotations.get(name, inspect.Parameter.empty)
        if annotation is inspect.Parameter.empty or _is_array(annotation) or self.takes_tensors:
            return array
        plain = array.tolist() if hasattr(array, "tolist") else array
        if _bare(annotation) in (int, float, str, bool):
            while isinstance(plain, list) and len(plain) == 1:
                plain = plain[0]
        return convert(plain, annotation, name)

    def _of_body(self, call):
        if "json" not in call.content_type and call.content_type:
            if len(self.required) == 1:
                annotation = _bare(self.annotations[self.required[0]])
                if annotation is bytes:
                    return {self.required[0]: bytes(call.body)}
                if annotation is str:
                    return {self.required[0]: call.body.decode()}
            if not self.required:
                return {}
            raise BadInput(f"the function takes JSON, the body is `{call.content_type}`; send `application/json`")
        try:
            body = values.json.loads(call.body) if call.body.strip() else {}
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from None
        names = {p.name for p in self.parameters}
        form = _form(body, names)
        if form is not None:
            body, params = form
            call.parameters = {**call.parameters, **params}
            if self.frame is not None:
                return {self.frame: frame_of_json(body, self.frame)}
        fits = isinstance(body, dict) and (self.takes_any or set(body) <= names) and set(self.required) <= set(body)
        if not fits:
            whole = self._whole(body)
            if whole is not None:
                body = {whole: body}
            elif not isinstance(body, dict):
                raise BadInput(f"the body is a {_kind(body)}; expected an object with {self._takes()}")
        self._check(body)
        empty = inspect.Parameter.empty
        return {name: convert(value, self.annotations.get(name, empty), name) for name, value in body.items()}

    def _whole(self, body):
        """The parameter that takes the whole body, if there is one."""
        candidates = self.required or [p.name for p in self.parameters][:1]
        if len(candidates) != 1:
            return None
        bare = _bare(self.annotations[candidates[0]])
        if isinstance(body, dict):
            takes = bare in (dict, inspect.Parameter.empty, typing.Any) or hasattr(bare, "model_validate")
            takes = takes or dataclasses.is_dataclass(bare) or typing.is_typeddict(bare) or candidates[0] == self.frame
            return candidates[0] if takes else None
        return candidates[0]

    def _check(self, given):
        names = {p.name for p in self.parameters}
        missing = [name for name in self.required if name not in given]
        unknown = [] if self.takes_any else sorted(set(given) - names)
        if unknown:
            raise BadInput(f"the function takes no `{unknown[0]}`; it takes {self._takes()}")
        if missing:
            raise BadInput(f"`{missing[0]}` is missing; the function takes {self._takes()}")

    def _takes(self):
        return ", ".join(f"`{p.name}`" for p in self.parameters) or "nothing"


def _kind(value):
    names = {dict: "object", list: "list", str: "text", bool: "truth value", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def convert(value, annotation, name):
    """A value of JSON as the annotation wants it."""
    if annotation is inspect.Parameter.empty or annotation is typing.Any:
        return value
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return convert(value, typing.get_args(annotation)[0], name)
    if origin in (typing.Union, types.UnionType):
        kinds = typing.get_args(annotation)
        if value is None and type(None) in kinds:
            return None
        error = None
        # What needs no conversion goes before what does.
        for kind in sorted((k for k in kinds if k is not type(None)), key=lambda k: type(value) is not k):
            try:
                return convert(value, kind, name)
            except BadInput as why:
                error = error or why
        raise error or BadInput(f"`{name}` is null")
    if hasattr(annotation, "model_validate"):
        if isinstance(value, annotation):
            return value
        try:
            return annotation.model_validate(value)
        except ValueError as error:
            raise BadInput(f"`{name}`: {error}") from None
    if dataclasses.is_dataclass(annotation):
        return _dataclass(value, annotation, name)
    if _is_array(annotation):
        try:
            return values.np.asarray(value)
        except ValueError as error:
            raise BadInput(f"`{name}`: {error}") from None
    if _is_frame(annotation):
        return frame_of_json(value, name)
    if origin in (list, set, frozenset, tuple) or annotation in (list, set, frozenset, tuple):
        return _sequence(value, annotation, origin or annotation, name)
    if origin is dict and isinstance(value, dict):
        kind = (typing.get_args(annotation) or (str, typing.Any))[1]
        return {key: convert(item, kind, f"{name}.{key}") for key, item in value.items()}
    if origin is typing.Literal:
        if value not in typing.get_args(annotation):
            raise BadInput(f"`{name}` is {value!r}; expected one of {', '.join(map(repr, typing.get_args(annotation)))}")
        return value
    return _plain_kind(value, annotation, name)


def _plain_kind(value, annotation, name):
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        try:
            return annotation(value)
        except ValueError:
            expected = ", ".join(repr(item.value) for item in annotation)
            raise BadInput(f"`{name}` is {value!r}; expected one of {expected}") from None
    expected = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "an object"}.get(annotation)
    if expected and (not isinstance(value, annotation) or isinstance(value, bool) and annotation is not bool):
        raise BadInput(f"`{name}` is {_shown(value)}; expected {expected}")
    return value


def _shown(value):
    text = repr(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _sequence(value, annotation, kind, name):
    if not isinstance(value, list):
        raise BadInput(f"`{name}` is {_shown(value)}; expected a list")
    inner = typing.get_args(annotation)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(inner) != len(value):
            raise BadInput(f"`{name}` has {len(value)} items; expected {len(inner)}")
        return tuple(convert(item, each, f"{name}[{i}]") for i, (item, each) in enumerate(zip(value, inner)))
    if inner:
        value = [convert(item, inner[0], f"{name}[{i}]") for i, item in enumerate(value)]
    return kind(value)


def _dataclass(value, annotation, name):
    if isinstance(value, annotation):
        return value
    if not isinstance(value, dict):
        raise BadInput(f"`{name}` is {_shown(value)}; expected an object")
    fields = {field.name: field for field in dataclasses.fields(annotation) if field.init}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise BadInput(f"`{name}` has no `{unknown[0]}`; it has {', '.join(f'`{f}`' for f in fields)}")
    hints = typing.get_type_hints(annotation)
    given = {key: convert(item, hints.get(key, typing.Any), f"{name}.{key}") for key, item in value.items()}
    try:
        return annotation(**given)
    except TypeError as error:
        raise BadInput(f"`{name}`: {error}") from None


def _pandas():
    try:
        import pandas
    except ImportError:
        raise Refused("this needs pandas, which is not in the environment; add it to its requirements") from None
    return pandas


def frame_of(arrays):
    """Columns as a data frame; a tensor of two dimensions becomes as many columns."""
    columns = {}
    for name, array in arrays.items():
        if getattr(array, "ndim", 1) == 2:
            for i in range(array.shape[1]):
                columns[name if array.shape[1] == 1 else f"{name}_{i}"] = array[:, i]
        else:
            columns[name] = array
    return _pandas().DataFrame(columns)


def frame_of_json(value, name):
    pandas = _pandas()
    try:
        if isinstance(value, dict) and {"data"} <= set(value) <= {"columns", "data", "index"}:
            return pandas.DataFrame(value["data"], columns=value.get("columns"), index=value.get("index"))
        return pandas.DataFrame(value)
    except (ValueError, TypeError) as error:
        raise BadInput(f"`{name}`: {error}") from None


# A pickled estimator


def _unpickle(path):
    """Runs whatever the file says: only ever here, in a process of its own."""
    if path.endswith((".joblib", ".joblib.gz", ".joblib.z")):
        import joblib

        return joblib.load(path)
    try:
        with open(path, "rb") as file:
            return __import__("pickle").load(file)
    except Exception:
        # joblib's own files begin like a pickle and are none.
        if importlib.util.find_spec("joblib") is None:
            raise
        import joblib

        return joblib.load(path)


def _estimator(model):
    estimator = _unpickle(model["file"])
    if callable(getattr(estimator, "predict", None)) or model.get("method"):
        return EstimatorModel(estimator, model)
    if callable(estimator):
        return FunctionModel(estimator, model.get("settings") or {}, None)
    raise Refused(f"`{model['file']}` holds a `{type(estimator).__name__}`, which has no `predict` and cannot be called")


#: Estimators of these take a matrix of numbers as well as the table that they were trained on.
_MATRIX_WILL_DO = ("sklearn.ensemble.", "sklearn.linear_model.", "sklearn.tree.", "sklearn.svm.", "sklearn.neighbors.", "sklearn.naive_bayes", "sklearn.neural_network.")


class EstimatorModel(Model):
    """Something with `predict`, as scikit-learn's estimators have it."""

    def __init__(self, estimator, model):
        method = model.get("method") or "predict"
        function = getattr(estimator, method, None)
        if not callable(function):
            raise Refused(f"a `{type(estimator).__name__}` has no `{method}`; name another with `--method`")
        names = getattr(estimator, "feature_names_in_", None)
        names = [str(name) for name in names] if names is not None else []
        count = getattr(estimator, "n_features_in_", None)
        inputs = _specs(model.get("inputs") or {})
        if not inputs and names:
            inputs = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in names]
        elif not inputs and count:
            inputs = [{"name": "input", "datatype": "FP64", "shape": [-1, int(count)]}]
        columns = bool(inputs) and all(len(spec["shape"]) == 1 for spec in inputs)
        outputs = _specs(model.get("outputs") or {})
        classes = getattr(estimator, "classes_", None)
        if not outputs and method.startswith("predict_proba") and classes is not None:
            labels = [str(label) for label in classes]
            outputs = [{"name": "output", "datatype": "FP64", "shape": [-1, len(labels)], "labels": labels}]
        interface = {"inputs": inputs, "outputs": outputs, "batches": True, "columns": columns, "body": True}
        super().__init__(function, interface)
        whole = type(estimator).__module__ + "."
        needs_table = getattr(estimator, "is_categorical_", None) is not None
        self.matrix = not needs_table and whole.startswith(_MATRIX_WILL_DO) or not names
        self.names = [spec["name"] for spec in inputs]
        self.columns = columns
        # That a matrix has no names is known.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def arguments(self, call):
        if not call.tensors:
            return (self._of_json(call),), {}
        described, body = call.described, call.body
        if self.columns:
            order = [entry[0] for entry in described]
            if self.matrix:
                if order == self.names:
                    whole = values.matrix(described, body)
                    if whole is not None:
                        return (whole,), {}
                arrays = values.decode(described, body)
                return (values.np.column_stack([arrays[name] for name in self.names]),), {}
            arrays = values.decode(described, body)
            return (frame_of({name: arrays[name] for name in self.names if name in arrays}),), {}
        arrays = list(values.decode(described, body).values())
        return (arrays[0] if len(arrays) == 1 else values.np.column_stack(arrays),), {}

    def _of_json(self, call):
        try:
            body = values.json.loads(call.body)
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from None
        form = _form(body)
        if form is not None:
            body = form[0]
        if isinstance(body, dict):
            body = body if any(isinstance(v, list) for v in body.values()) else [body]
        if isinstance(body, dict) or body and isinstance(body, list) and isinstance(body[0], dict):
            frame = frame_of_json(body, "the body")
            missing = [name for name in self.names if name not in frame.columns]
            if missing and self.columns:
                raise BadInput(f"`{missing[0]}` is missing; the model takes {', '.join(f'`{n}`' for n in self.names)}")
            frame = frame[self.names] if self.columns else frame
            return frame.to_numpy() if self.matrix else frame
        matrix = values.np.asarray(body)
        matrix = matrix.reshape(1, -1) if matrix.ndim == 1 else matrix
        if self.matrix or not self.columns:
            return matrix
        return _pandas().DataFrame(matrix, columns=self.names)


# An MLflow model


#: MLflow's column types -> (datatype, pandas')
_COLUMN_TYPES = {
    "boolean": ("BOOL", "bool"),
    "integer": ("INT32", "int32"),
    "long": ("INT64", "int64"),
    "float": ("FP32", "float32"),
    "double": ("FP64", "float64"),
    "string": ("BYTES", "object"),
    "binary": ("BYTES", "object"),
    "datetime": ("BYTES", "datetime64[ns]"),
}
_DTYPES = {"bool": "BOOL", "object": "BYTES", "str": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
_DTYPES.update({f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})


def _mlflow(model):
    path = model["folder"]
    flavors = model["flavors"]
    loader = (flavors.get("python_function") or {}).get("loader_module", "")
    if importlib.util.find_spec("mlflow") is not None:
        import mlflow.pyfunc

        pyfunc = mlflow.pyfunc.load_model(path)
        takes_params = bool((model.get("signature") or {}).get("params"))

        def predict(data, params=None):
            return pyfunc.predict(data, params=params) if takes_params and params else pyfunc.predict(data)

        return MlflowModel(predict, model)
    for flavor, load_flavor in (("sklearn", _sklearn), ("xgboost", _xgboost), ("lightgbm", _lightgbm), ("pytorch", _pytorch)):
        if flavor in flavors:
            return MlflowModel(load_flavor(path, flavors[flavor], flavors.get("python_function") or {}), model)
    raise Refused(
        f"the model is loaded by `{loader or ', '.join(flavors)}`, which needs mlflow: add `mlflow` to the environment's requirements"
    )


def _needs(module, flavor):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"the flavour `{flavor}` needs `{module}` in the environment: {error}") from error


def _sklearn(path, flavor, pyfunc):
    _needs("sklearn", "sklearn")
    if flavor.get("serialization_format") == "cloudpickle":
        _needs("cloudpickle", "sklearn")
    estimator = _unpickle(os.path.join(path, flavor.get("pickled_model") or pyfunc.get("model_path") or "model.pkl"))
    method = getattr(estimator, pyfunc.get("predict_fn") or "predict")
    return lambda data, params=None: method(data)


def _xgboost(path, flavor, pyfunc):
    xgboost = _needs("xgboost", "xgboost")
    data = os.path.join(path, flavor.get("data") or pyfunc.get("data") or "model.xgb")
    kind = (flavor.get("model_class") or "xgboost.core.Booster").rpartition(".")[2]
    model = getattr(xgboost, kind)()
    model.load_model(data)
    if kind == "Booster":
        return lambda data, params=None: model.predict(xgboost.DMatrix(data))
    return lambda data, params=None: model.predict(data)


def _lightgbm(path, flavor, pyfunc):
    lightgbm = _needs("lightgbm", "lightgbm")
    data = os.path.join(path, flavor.get("data") or pyfunc.get("data") or "model.lgb")
    model = _unpickle(data) if data.endswith(".pkl") else lightgbm.Booster(model_file=data)
    return lambda data, params=None: model.predict(data)


def _pytorch(path, flavor, pyfunc):
    torch = _needs("torch", "pytorch")
    file = os.path.join(path, flavor.get("model_data") or "data", "model.pth")
    model = torch.load(file, map_location="cpu", weights_only=False)
    model.eval()

    def predict(data, params=None):
        array = data.to_numpy(dtype="float32") if hasattr(data, "to_numpy") else data
        with torch.no_grad():
            return model(torch.from_numpy(values.np.ascontiguousarray(array))).numpy()

    return predict


class MlflowModel(Model):
    """A model that mlflow wrote, asked as `mlflow.pyfunc` would ask it."""

    def __init__(self, predict, model):
        signature = model.get("signature") or {}
        inputs, self.kinds = [], {}
        for i, column in enumerate(signature.get("inputs") or []):
            inputs.append(self._spec(column, i, self.kinds))
        outputs = [self._spec(column, i, {}) for i, column in enumerate(signature.get("outputs") or [])]
        tensors = any((c or {}).get("type") == "tensor" for c in signature.get("inputs") or [])
        inputs = [] if None in inputs else inputs
        outputs = [] if None in outputs else outputs
        self.table = not tensors
        # Whatever the signature's names are, an answer without any has the only one's.
        interface = {"inputs": inputs, "outputs": outputs, "batches": True, "columns": self.table, "body": not signature.get("inputs")}
        super().__init__(predict, interface)
        self.unnamed = tensors and len(inputs) == 1
        self.declared = {}

    @staticmethod
    def _spec(column, position, kinds):
        kind = column.get("type")
        if kind == "tensor":
            spec = column["tensor-spec"]
            datatype = _DTYPES.get(spec["dtype"])
            name = column.get("name") or ("input" if position == 0 else f"input_{position}")
            return {"name": name, "datatype": datatype, "shape": list(spec["shape"])} if datatype else None
        if kind not in _COLUMN_TYPES:
            return None
        name = column.get("name") or str(position)
        datatype, kinds[name] = _COLUMN_TYPES[kind]
        optional = column.get("required") is False or column.get("optional") is True
        return {"name": name, "datatype": datatype, "shape": [-1], "optional": optional}

    def arguments(self, call):
        params = {"params": call.parameters} if call.parameters else {}
        if not call.tensors:
            try:
                body = values.json.loads(call.body)
            except ValueError as error:
                raise BadInput(f"the body is not JSON: {error}") from None
            form = _form(body)
            if form is not None:
                body = form[0]
                params = {"params": form[1]} if form[1] else params
            return (frame_of_json(body, "the body") if isinstance(body, (dict, list)) else body,), params
        arrays = values.decode(call.described, call.body)
        if not self.table:
            return (next(iter(arrays.values())) if self.unnamed else arrays,), params
        for name, kind in self.kinds.items():
            if kind == "datetime64[ns]" and name in arrays:
                arrays[name] = _pandas().to_datetime(_pandas().Series(arrays[name]))
        return (frame_of(arrays),), params
