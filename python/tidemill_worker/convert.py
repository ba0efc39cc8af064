"""Values of JSON as a function's annotations want them, and tables."""

import dataclasses
import enum
import inspect
import io
import types
import typing

from tidemill_worker import values
from tidemill_worker.values import BadInput


class Refused(Exception):
    """It cannot be loaded as it is; the message says why, without a traceback."""


def is_array(annotation):
    return values.np is not None and bare(annotation) is values.np.ndarray


def bare(annotation):
    """`annotation` without `Annotated` and type arguments."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def is_frame(annotation):
    kind = bare(annotation)
    return getattr(kind, "__name__", "") == "DataFrame" and getattr(kind, "__module__", "").startswith("pandas")


def kind_of(value):
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
    if is_array(annotation):
        try:
            return values.np.asarray(value)
        except ValueError as error:
            raise BadInput(f"`{name}`: {error}") from None
    if is_frame(annotation):
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


def pandas_or_refuse():
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
    return pandas_or_refuse().DataFrame(columns)


def table_of(body, content_type):
    """CSV or Parquet as a data frame; None for another content type."""
    kind = content_type.partition(";")[0].strip().lower()
    reader = {"text/csv": "read_csv", "application/vnd.apache.parquet": "read_parquet", "application/x-parquet": "read_parquet"}.get(kind)
    if reader is None:
        return None
    pandas = pandas_or_refuse()
    # SageMaker's way to say that the first line holds no names.
    how = {"header": None} if reader == "read_csv" and "header=absent" in content_type.replace(" ", "").lower() else {}
    try:
        return getattr(pandas, reader)(io.BytesIO(body), **how)
    except ImportError as error:
        raise Refused(f"a body of `{kind}` cannot be read here: {error}") from None
    except Exception as error:
        raise BadInput(f"the body is not `{kind}`: {error}") from None


def frame_of_json(value, name):
    pandas = pandas_or_refuse()
    try:
        if isinstance(value, dict) and {"data"} <= set(value) <= {"columns", "data", "index"}:
            return pandas.DataFrame(value["data"], columns=value.get("columns"), index=value.get("index"))
        return pandas.DataFrame(value)
    except (ValueError, TypeError) as error:
        raise BadInput(f"`{name}`: {error}") from None
