"""Models that mlflow wrote: by `mlflow.pyfunc` where it is installed, else by the flavour's own loader."""

import importlib
import importlib.util
import os

from tidemill_worker import scoring, values
from tidemill_worker.convert import Refused, frame_of, pandas_or_refuse
from tidemill_worker.loading import Call, Model, unpickle


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


def load(model):
    path = model["folder"]
    flavors = model["flavors"]
    loader = (flavors.get("python_function") or {}).get("loader_module", "")
    if importlib.util.find_spec("mlflow") is not None:
        import mlflow.pyfunc

        pyfunc = mlflow.pyfunc.load_model(path)
        takes_params = bool((model.get("signature") or {}).get("params"))

        def predict(data, params=None):
            return pyfunc.predict(data, params=params) if takes_params and params else pyfunc.predict(data)

        return MlflowModel(predict, model, scoring.by_mlflow(pyfunc))
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
        package = {"sklearn": "scikit-learn"}.get(module, module.partition(".")[0])
        raise Refused(
            f"the flavour `{flavor}` needs `{module}`: {error}; add `{package}` to the environment's requirements (`--requirements`), or mlflow"
        ) from error


def opened(path, flavor):
    """What was pickled, or written by skops, with the types that whoever logged it trusted."""
    if flavor.get("serialization_format") != "skops":
        return unpickle(path)
    trusted = flavor.get("skops_trusted_types") or []
    return _needs("skops.io", "skops").load(path, trusted=trusted)


def _sklearn(path, flavor, pyfunc):
    _needs("sklearn", "sklearn")
    if flavor.get("serialization_format") == "cloudpickle":
        _needs("cloudpickle", "sklearn")
    estimator = opened(os.path.join(path, flavor.get("pickled_model") or pyfunc.get("model_path") or "model.pkl"), flavor)
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
    model = opened(data, flavor) if data.endswith((".pkl", ".skops")) else lightgbm.Booster(model_file=data)
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


def _is_text_tensor(column):
    return column.get("type") == "tensor" and column["tensor-spec"]["dtype"] == "str"


class MlflowModel(Model):
    """A model that mlflow wrote, asked as `mlflow.pyfunc` would ask it: with tensors, or with bodies of its scoring protocol."""

    def __init__(self, predict, model, score=None):
        signature = model.get("signature") or {}
        self.score = score or scoring.by_predict(predict, signature)
        self.predict = predict
        inputs, self.kinds = [], {}
        for i, column in enumerate(signature.get("inputs") or []):
            inputs.append(self._spec(column, i, self.kinds))
        outputs = [self._spec(column, i, {}) for i, column in enumerate(signature.get("outputs") or [])]
        tensors = any((c or {}).get("type") == "tensor" for c in signature.get("inputs") or [])
        inputs = [] if None in inputs else inputs
        outputs = [] if None in outputs else outputs
        self.table = not tensors
        # Whatever the signature's names are, an answer without any has the only one's.
        interface = {"inputs": inputs, "outputs": outputs, "batches": True, "columns": self.table, "body": True, "scores": True}
        super().__init__(self._answer, interface)
        self.texts = {c.get("name") or "input" for c in signature.get("inputs") or [] if _is_text_tensor(c)} if tensors else set()
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
        datatype, dtype = _COLUMN_TYPES[kind]
        kinds[name] = (kind, dtype)
        optional = column.get("required") is False or column.get("optional") is True
        return {"name": name, "datatype": datatype, "shape": [-1], "optional": optional}

    def _answer(self, data, params=None):
        if isinstance(data, Call):
            import tidemill

            return tidemill.Response(self.score(data), "application/json")
        return self.predict(data, params=params)

    def arguments(self, call):
        if not call.tensors:
            return (call,), {}
        params = {"params": call.parameters} if call.parameters else {}
        arrays = values.decode(call.described, call.body)
        if not self.table:
            for name in self.texts & set(arrays):
                arrays[name] = arrays[name].astype(str)
            return (next(iter(arrays.values())) if self.unnamed else arrays,), params
        for name, (kind, dtype) in self.kinds.items():
            if name not in arrays:
                continue
            if dtype == "datetime64[ns]":
                arrays[name] = pandas_or_refuse().to_datetime(pandas_or_refuse().Series(arrays[name]))
            elif kind == "binary":
                arrays[name] = [item.encode() if isinstance(item, str) else item for item in arrays[name]]
        return (frame_of(arrays),), params
