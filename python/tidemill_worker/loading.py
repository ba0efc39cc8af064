"""Loads what a worker serves: a function or class of the user's, a pickled estimator, an MLflow model. Each becomes a `Model`."""

import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import typing
import warnings

from tidemill_worker import values
from tidemill_worker.convert import (
    Refused, bare, convert, frame_of, frame_of_json, is_array, is_frame, kind_of, pandas_or_refuse, table_of,
)
from tidemill_worker.values import BadInput


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
    if model["kind"] == "mlflow":
        from tidemill_worker import mlflow_model

        return mlflow_model.load(model)
    return {"function": _function, "estimator": _estimator}[model["kind"]](model)


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


#: How MLflow's scoring protocol writes its inputs.
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def form_of(body, names=()):
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
        frames = [p.name for p in self.parameters if is_frame(self.annotations[p.name])]
        arrays = [p.name for p in self.parameters if is_array(self.annotations[p.name])]
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
        if annotation is inspect.Parameter.empty or is_array(annotation) or self.takes_tensors:
            return array
        plain = array.tolist() if hasattr(array, "tolist") else array
        if bare(annotation) in (int, float, str, bool):
            while isinstance(plain, list) and len(plain) == 1:
                plain = plain[0]
        return convert(plain, annotation, name)

    def _of_body(self, call):
        if "json" not in call.content_type and call.content_type:
            if self.frame is not None and (table := table_of(call.body, call.content_type)) is not None:
                return {self.frame: table}
            if len(self.required) == 1:
                annotation = bare(self.annotations[self.required[0]])
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
        form = form_of(body, names)
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
                raise BadInput(f"the body is a {kind_of(body)}; expected an object with {self._takes()}")
        self._check(body)
        empty = inspect.Parameter.empty
        return {name: convert(value, self.annotations.get(name, empty), name) for name, value in body.items()}

    def _whole(self, body):
        """The parameter that takes the whole body, if there is one."""
        candidates = self.required or [p.name for p in self.parameters][:1]
        if len(candidates) != 1:
            return None
        kind = bare(self.annotations[candidates[0]])
        if isinstance(body, dict):
            takes = kind in (dict, inspect.Parameter.empty, typing.Any) or hasattr(kind, "model_validate")
            takes = takes or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind) or candidates[0] == self.frame
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


# A pickled estimator


def unpickle(path):
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
    estimator = unpickle(model["file"])
    if callable(getattr(estimator, "predict", None)) or model.get("method"):
        return EstimatorModel(estimator, model)
    if callable(estimator):
        return FunctionModel(estimator, {}, None)
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
        table = table_of(call.body, call.content_type)
        if table is not None:
            return self._of_frame(table)
        try:
            body = values.json.loads(call.body)
        except ValueError as error:
            raise BadInput(f"the body is not JSON: {error}") from None
        form = form_of(body)
        if form is not None:
            body = form[0]
        if isinstance(body, dict):
            body = body if any(isinstance(v, list) for v in body.values()) else [body]
        if isinstance(body, dict) or body and isinstance(body, list) and isinstance(body[0], dict):
            return self._of_frame(frame_of_json(body, "the body"))
        matrix = values.np.asarray(body)
        matrix = matrix.reshape(1, -1) if matrix.ndim == 1 else matrix
        if self.matrix or not self.columns:
            return matrix
        return pandas_or_refuse().DataFrame(matrix, columns=self.names)

    def _of_frame(self, frame):
        missing = [name for name in self.names if name not in frame.columns]
        if missing and self.columns:
            raise BadInput(f"`{missing[0]}` is missing; the model takes {', '.join(f'`{n}`' for n in self.names)}")
        frame = frame[self.names] if self.columns else frame
        return frame.to_numpy() if self.matrix else frame
