"""Tensors and JSON, to Python's values and back. numpy is used where it is there."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import struct
import sys
import uuid

try:
    import numpy as np
except ImportError:
    np = None

#: datatype -> (format of `struct` and `memoryview.cast`, numpy's)
FIXED = {
    "BOOL": ("?", "?"),
    "UINT8": ("B", "<u1"),
    "UINT16": ("H", "<u2"),
    "UINT32": ("I", "<u4"),
    "UINT64": ("Q", "<u8"),
    "INT8": ("b", "<i1"),
    "INT16": ("h", "<i2"),
    "INT32": ("i", "<i4"),
    "INT64": ("q", "<i8"),
    "FP16": ("e", "<f2"),
    "BF16": ("H", "<u2"),
    "FP32": ("f", "<f4"),
    "FP64": ("d", "<f8"),
}
if np is not None:
    DTYPES = {name: np.dtype(formats[1]) for name, formats in FIXED.items()}
    NAMES = {DTYPES[name]: name for name in FIXED if name != "BF16"}

_MISSING = 0xFFFFFFFF
#: What is a text of JSON where a tensor of texts holds it.
_STRUCTURES = (dict, list, tuple)


class BadInput(Exception):
    """The caller's payload does not fit."""


def padding(length):
    """Each tensor begins at a multiple of eight bytes."""
    return -length % 8


def decode(described, body):
    """name -> array (or nested lists, without numpy)."""
    found = {}
    offset = 0
    for name, datatype, shape, length in described:
        if datatype == "BYTES":
            found[name] = _strings(body, offset, shape)
        elif np is None:
            found[name] = _nested(memoryview(body)[offset : offset + length].cast(FIXED[datatype][0]).tolist(), shape)
        else:
            count = length // DTYPES[datatype].itemsize
            array = np.frombuffer(body, DTYPES[datatype], count, offset)
            if datatype == "BF16":
                array = (array.astype("<u4") << 16).view("<f4")
            found[name] = array if len(shape) == 1 else array.reshape(shape)
        offset += length + padding(length)
    return found


def matrix(described, body):
    """Columns of one numeric type as a matrix of rows, without a copy; None where they are not that."""
    if np is None or not described:
        return None
    _, datatype, shape, length = described[0]
    if datatype == "BYTES" or datatype == "BF16" or len(shape) != 1 or length % 8:
        return None
    for _, other, other_shape, _ in described:
        if other != datatype or other_shape != shape:
            return None
    return np.frombuffer(body, DTYPES[datatype], shape[0] * len(described)).reshape(len(described), shape[0]).T


def _strings(body, offset, shape):
    count = math.prod(shape)
    lengths = struct.unpack_from(f"<{count}I", body, offset)
    at = offset + 4 * count
    found = []
    for length in lengths:
        if length == _MISSING:
            found.append(None)
            continue
        raw = bytes(body[at : at + length])
        at += length
        try:
            found.append(raw.decode())
        except UnicodeDecodeError:
            found.append(raw)
    if np is None:
        return _nested(found, shape)
    array = np.empty(count, dtype=object)
    array[:] = found
    return array.reshape(shape)


def _nested(flat, shape):
    if len(shape) <= 1:
        return flat if shape else flat[0]
    width = math.prod(shape[1:])
    return [_nested(flat[i * width : (i + 1) * width], shape[1:]) for i in range(shape[0])]


def encode(named, declared=None):
    """[(name, value)] -> the description of tensors, and their bytes. `declared`: name -> datatype."""
    described, parts = [], []
    for name, value in named:
        datatype, shape, raw = _tensor(name, value, (declared or {}).get(name))
        length = len(raw)
        described.append([name, datatype, shape, length])
        if length:
            parts.append(raw)
        if padding(length):
            parts.append(b"\0" * padding(length))
    return described, parts


def _tensor(name, value, wanted):
    if np is None:
        return _plain_tensor(name, value, wanted)
    array = value
    if not isinstance(array, np.ndarray):
        # Whoever gives a tensor of torch, a column of pandas and the like gives an array so.
        if hasattr(array, "detach"):
            array = array.detach().cpu().numpy()
        elif hasattr(array, "to_numpy"):
            array = array.to_numpy()
        else:
            array = _array(array)
    if array.dtype.kind in "Mm":
        array = np.datetime_as_string(array) if array.dtype.kind == "M" else array.astype("<i8")
    if array.dtype.kind in "OUSV" or array.dtype.name.startswith("str"):
        return _object_tensor(name, array, wanted)
    if wanted == "BYTES":
        return _bytes(array.astype(str).reshape(-1).tolist(), list(array.shape))
    if wanted == "BF16":
        bits = (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2")
        return "BF16", list(array.shape), memoryview(bits.reshape(-1)).cast("B")
    if wanted is not None and array.dtype != DTYPES[wanted]:
        array = array.astype(DTYPES[wanted])
    datatype = NAMES.get(array.dtype)
    if datatype is None:
        raise TypeError(f"output `{name}` has dtype `{array.dtype}`, which no tensor has; give a number, a truth value or a text")
    shape = list(array.shape)
    array = np.ascontiguousarray(array)
    return datatype, shape, memoryview(array.reshape(-1)).cast("B") if array.size else b""


def _array(value):
    """Rows of different lengths, or objects, are an array of what they are."""
    if isinstance(value, (dict, bytes)):
        value = [value]
    try:
        return np.asarray(value)
    except ValueError:
        if not isinstance(value, (list, tuple)):
            raise
    array = np.empty(len(value), dtype=object)
    array[:] = [list(item) if isinstance(item, np.ndarray) else item for item in value]
    return array


def _object_tensor(name, array, wanted):
    flat = array.reshape(-1).tolist()
    if wanted in (None, "BYTES"):
        if wanted is None and flat and all(isinstance(item, (int, float)) or item is None for item in flat):
            kind = "<f8" if any(item is None or isinstance(item, float) for item in flat) else None
            numbers = np.array([math.nan if item is None else item for item in flat], dtype=kind)
            if numbers.dtype in NAMES:
                return _tensor(name, numbers.reshape(array.shape), None)
        return _bytes(flat, list(array.shape))
    return _tensor(name, array.astype(DTYPES[wanted]), wanted)


def _bytes(flat, shape):
    lengths, raws = [], []
    pandas = sys.modules.get("pandas")
    missing = (None, pandas.NA) if pandas is not None else (None,)
    for item in flat:
        if isinstance(item, _STRUCTURES) or np is not None and isinstance(item, np.ndarray):
            raw = to_json(item)
        # pandas marks a missing text with a number that is none.
        elif any(item is nothing for nothing in missing) or item != item:
            lengths.append(_MISSING)
            continue
        else:
            raw = item if isinstance(item, bytes) else str(item).encode()
        lengths.append(len(raw))
        raws.append(raw)
    return "BYTES", shape, struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(raws)


def _plain_tensor(name, value, wanted):
    """Without numpy: lists of lists."""
    shape, flat = [], [value]
    while flat and isinstance(flat[0], (list, tuple)):
        width = len(flat[0])
        if any(not isinstance(row, (list, tuple)) or len(row) != width for row in flat):
            raise TypeError(f"output `{name}` has rows of different lengths")
        shape.append(width)
        flat = [item for row in flat for item in row]
    if wanted is None:
        kinds = {type(item) for item in flat}
        if kinds <= {bool}:
            wanted = "BOOL"
        elif kinds <= {bool, int}:
            wanted = "INT64"
        elif kinds <= {bool, int, float}:
            wanted = "FP64"
        else:
            wanted = "BYTES"
    if wanted == "BYTES":
        return _bytes(flat, shape)
    return wanted, shape, struct.pack(f"<{len(flat)}{FIXED[wanted][0]}", *flat)


# JSON


def jsonable(value):
    """What `json` does not know by itself."""
    if np is not None:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, np.generic):
            return value.item()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode()
    kind = type(value).__name__
    if kind == "DataFrame" and hasattr(value, "to_dict"):
        return value.to_dict(orient="records")
    if hasattr(value, "detach"):
        return value.detach().cpu().tolist()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"an answer of type `{kind}` is no JSON; return numbers, texts, lists, dicts, arrays or data frames")


_encoder = json.JSONEncoder(default=jsonable, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def to_json(value):
    """Bytes of JSON; numbers that JSON has not become null."""
    try:
        return _encoder.encode(value).encode()
    except ValueError as error:
        if "JSON compliant" not in str(error):
            raise
    loose = json.loads(json.dumps(value, default=jsonable))
    return _encoder.encode(finite(loose)).encode()


def finite(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value
