"""Bodies of MLflow's scoring protocol: read and answered by mlflow's own functions where it is installed, else by what stands here."""

import base64
import inspect
import json
import os

from tidemill_worker import values
from tidemill_worker.convert import Refused, frame_of_json, kind_of, pandas_or_refuse, table_of
from tidemill_worker.values import BadInput

#: How a body writes its inputs; exactly one of these.
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Caller(BadInput):
    """The caller's fault, under the name that MLflow gives it."""

    def __init__(self, message, error_code):
        super().__init__(message)
        self.error_code = error_code


def fault_of(error):
    """An exception of mlflow's as the caller's fault; None if it is another's."""
    if not any(kind.__name__ == "MlflowException" for kind in type(error).__mro__):
        return None
    status = getattr(error, "get_http_status_code", lambda: 500)()
    if not 400 <= status < 500:
        return None
    message = getattr(error, "message", None) or str(error)
    # mlflow repeats the whole input before it says what is wrong with it.
    if message.startswith("Failed to predict data ") and "\nError: " in message:
        message = message.split("\nError: ", 1)[1]
    return Caller(message, getattr(error, "error_code", "BAD_REQUEST"))


# By mlflow


class _Asked:
    """A model of pyfunc's, asked once; keeps what its own code raised, which mlflow replaces by words that say nothing."""

    def __init__(self, pyfunc, takes_params):
        self.pyfunc = pyfunc
        self.metadata = pyfunc.metadata
        self.takes_params = takes_params
        self.raised = None

    def predict(self, data, params=None):
        try:
            return self.pyfunc.predict(data, params=params) if self.takes_params else self.pyfunc.predict(data)
        except Exception as error:
            if fault_of(error) is None:
                self.raised = error
            raise


def by_mlflow(pyfunc):
    """What answers a call as `mlflow models serve` would: call -> bytes of JSON. None where this mlflow cannot be asked so."""
    try:
        from mlflow.pyfunc import scoring_server

        invocations = scoring_server.invocations
    except (ImportError, AttributeError):
        return None
    schema = pyfunc.metadata.get_input_schema()
    takes_params = "params" in inspect.signature(pyfunc.predict).parameters
    # As its server does: type hints are then met by what JSON holds.
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"

    def score(call):
        asked = _Asked(pyfunc, takes_params)
        try:
            answer = invocations(_with_params(call), call.content_type or "application/json", asked, schema)
        except Exception as error:
            if asked.raised is not None:
                raise asked.raised from None
            if fault_of(error) is None:
                # The model has answered: what it said cannot be written.
                raise Refused(f"{type(error).__name__}: {error}") from None
            raise
        if answer.status != 200:
            raise BadInput(answer.response)
        return strict(answer.response)

    return score


def _with_params(call):
    """The body, with the parameters that other protocols have elsewhere, or under another name, where MLflow looks for them."""
    body = bytes(call.body)
    if "json" in call.content_type and (call.parameters or b'"parameters"' in body):
        try:
            whole = json.loads(body)
        except ValueError:
            return body
        if isinstance(whole, dict) and "params" not in whole and any(form in whole for form in FORMS):
            parameters = whole.pop("parameters", None) or {}
            if isinstance(parameters, dict):
                parameters = call.parameters | parameters
            return json.dumps(whole | ({"params": parameters} if parameters else {}))
    return body


def strict(text):
    """JSON as everybody reads it: mlflow writes numbers that JSON has not."""
    if "NaN" in text or "Infinity" in text:
        return values.to_json(values.finite(json.loads(text)))
    return text.encode()


# Without mlflow


class Columns:
    """The columns that a signature names, and MLflow's casts to their types."""

    def __init__(self, signature):
        declared = signature.get("inputs") or []
        self.tensors = any((column or {}).get("type") == "tensor" for column in declared)
        self.columns = [] if self.tensors else [column for column in declared if column.get("name")]
        self.named = bool(self.columns) and len(self.columns) == len(declared)
        self.any = bool(declared)

    def fit(self, data):
        """`data` with the columns in order and of their types."""
        if not self.named:
            return data
        pandas = pandas_or_refuse()
        frame = data if isinstance(data, pandas.DataFrame) else pandas.DataFrame(data)
        if len(frame.columns) == len(self.columns) and list(frame.columns) == list(range(len(self.columns))):
            frame.columns = [column["name"] for column in self.columns]
        fitted = {}
        for column in self.columns:
            name = column["name"]
            if name in frame.columns:
                fitted[name] = self._cast(frame[name], column)
            elif column.get("required", True) and not column.get("optional"):
                raise BadInput(f"the model's input `{name}` is missing; it takes {', '.join(repr(c['name']) for c in self.columns)}")
        return pandas.DataFrame(fitted)

    def _cast(self, series, column):
        pandas, kind = pandas_or_refuse(), column.get("type")
        try:
            if kind == "binary":
                return series.map(lambda item: base64.decodebytes(item.encode()) if isinstance(item, str) else item)
            if kind == "datetime":
                return pandas.to_datetime(series)
            wanted = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}.get(kind)
            if wanted is None or wanted == series.dtype:
                return series
            cast = series.astype(wanted)
            if wanted.startswith("int") and (cast != series.astype("float64")).any():
                raise ValueError("it is not whole, or too large")
            return cast
        except (ValueError, TypeError, OverflowError) as error:
            raise BadInput(f"the model's input `{column['name']}` is not {kind}: {error}") from None


def read(call, columns):
    """(inputs, params) of a body."""
    table = table_of(call.body, call.content_type)
    if table is not None:
        return columns.fit(table), {}
    try:
        body = json.loads(_with_params(call))
    except ValueError as error:
        raise BadInput(f"the body is not JSON: {error}") from None
    expected = f"the body is an object with exactly one of {', '.join(f'`{form}`' for form in FORMS)}"
    if not isinstance(body, dict):
        raise BadInput(f"{expected}; a {kind_of(body)} came")
    found = [form for form in FORMS if form in body]
    if len(found) != 1:
        raise BadInput(f"{expected}; {', '.join(f'`{form}`' for form in found) or 'none'} came")
    form, params = found[0], body.get("params") or {}
    data = body[form]
    wanted = {"dataframe_split": dict, "dataframe_records": list, "instances": list}.get(form)
    if wanted is not None and not isinstance(data, wanted):
        raise BadInput(f"`{form}` is a {kind_of(data)}; expected {'an object' if wanted is dict else 'a list'}")
    if form.startswith("dataframe"):
        return columns.fit(frame_of_json(data, form)), params
    if columns.named:
        return columns.fit(data if not isinstance(data, dict) else _as_lists(data)), params
    if form == "instances" and data and all(isinstance(row, dict) for row in data):
        data = {name: [row.get(name) for row in data] for name in data[0]}
    try:
        if isinstance(data, dict):
            return {name: values.np.array(value) for name, value in data.items()}, params
        return values.np.array(data), params
    except ValueError as error:
        raise BadInput(f"`{form}`: {error}") from None


def _as_lists(data):
    return data if any(isinstance(value, list) for value in data.values()) else {name: [value] for name, value in data.items()}


def written(result):
    """The answer, as mlflow writes it."""
    return values.to_json({"predictions": _plain(result)})


def _plain(value):
    kind = type(value).__name__
    if kind in ("DataFrame", "Series") and hasattr(value, "to_numpy"):
        frame = pandas_or_refuse().DataFrame(value)
        return [{str(name): _plain(item) for name, item in row.items()} for row in frame.to_dict(orient="records")]
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(bytes(value)).decode()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def by_predict(predict, signature):
    """What answers a call with a model's own `predict`: call -> bytes of JSON."""
    columns = Columns(signature)

    def score(call):
        data, params = read(call, columns)
        return written(predict(data, params=params or None))

    return score
