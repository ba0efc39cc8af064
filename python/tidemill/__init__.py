"""What a function that `tidemill deploy` serves may say of itself. Needs nothing, and need not be installed: a worker brings it along.

    import numpy as np
    import tidemill

    @tidemill.endpoint(cpu=1, memory="512MiB", batch=True, inputs={"x": ("FP32", [-1, 4])})
    def predict(x: np.ndarray) -> np.ndarray:
        return x.sum(axis=1)
"""

import contextvars as _contextvars

__all__ = ["BadRequest", "Request", "Response", "endpoint", "request"]


class BadRequest(Exception):
    """Raised by a function whose caller is at fault: the caller is told the message, with a status of 400."""


class Response:
    """An answer that is no JSON: bytes, and their content type."""

    __slots__ = ("content", "content_type")

    def __init__(self, content, content_type="application/octet-stream"):
        self.content = content.encode() if isinstance(content, str) else bytes(content)
        self.content_type = content_type


class Request:
    """What travels with a call beside its arguments."""

    __slots__ = ("id", "parameters", "outputs", "content_type", "body")

    def __init__(self, id="", parameters=None, outputs=(), content_type="", body=b""):
        self.id = id
        self.parameters = parameters or {}
        self.outputs = outputs
        self.content_type = content_type
        self.body = body


_current = _contextvars.ContextVar("tidemill_request", default=None)


def request():
    """The request that is being answered; `None` outside of one."""
    return _current.get()


def endpoint(function=None, /, *, cpu=None, memory=None, concurrency=None, batch=None, timeout=None, inputs=None, outputs=None):
    """Says how a function wants to be served. What `tidemill deploy` is told on the command line goes before.

    cpu: CPU cores; threads of numeric libraries are set to it.
    memory: the most that a worker may take: MiB as a number, or a text such as "512MiB" or "2GiB".
    concurrency: calls at once in one worker.
    batch: True, or at most so many rows: the first dimension counts rows, and requests are answered together.
    timeout: seconds that a call may take, or a text such as "30s".
    inputs, outputs: {"name": ("FP32", [-1, 4])}: names, datatypes and shapes of tensors; -1 is any extent.
    """
    settings = {
        "cpu": cpu,
        "memory": memory,
        "concurrency": concurrency,
        "batch": batch,
        "timeout": timeout,
        "inputs": inputs,
        "outputs": outputs,
    }
    settings = {name: value for name, value in settings.items() if value is not None}

    def mark(target):
        target.__tidemill__ = settings
        return target

    return mark if function is None else mark(function)
