"""Models that mlflow wrote: by `mlflow.pyfunc` where it is installed, else by the flavour's own loader."""

import importlib
import importlib.util
import os

from tidemill_worker import values
from tidemill_worker.convert import Refused, frame_of, frame_of_json, pandas_or_refuse
from tidemill_worker.loading import Model, form_of, unpickle
from tidemill_worker.values import BadInput


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
            form = form_of(body)
            if form is not None:
                body = form[0]
                params = {"params": form[1]} if form[1] else params
            return (frame_of_json(body, "the body") if isinstance(body, (dict, list)) else body,), params
        arrays = values.decode(call.described, call.body)
        if not self.table:
            return (next(iter(arrays.values())) if self.unnamed else arrays,), params
        for name, kind in self.kinds.items():
            if kind == "datetime64[ns]" and name in arrays:
                arrays[name] = pandas_or_refuse().to_datetime(pandas_or_refuse().Series(arrays[name]))
        return (frame_of(arrays),), params
