"""A worker's life after the fork: load, say what it is, answer until the server closes the socket."""

import asyncio
import faulthandler
import os
import queue
import select
import sys
import threading
import traceback

from tidemill_worker import limits, loading, scoring, values, wire
from tidemill_worker.values import BadInput

_HERE = os.path.dirname(os.path.abspath(__file__))
_MAX_TRACEBACK = 16_000


def run(sock, config):
    """Returns the process's exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    faulthandler.enable()
    limits.apply(config)
    before = set(sys.modules)
    try:
        model = loading.load(config)
    except loading.Refused as error:
        return _not_started(sock, str(error), "")
    except SystemExit as error:
        return _not_started(sock, f"it left by `sys.exit({error.code!r})` while it was loaded", "")
    except BaseException as error:
        return _not_started(sock, _headline(error), _traceback(error))
    concurrency = max(1, config.get("concurrency") or 1)
    ready = {"interface": model.interface, "modules": _modules(before), "pid": os.getpid()}
    wire.send(sock, wire.READY, 0, ready)
    worker = _Worker(sock, model)
    try:
        if model.is_async:
            asyncio.run(_Async(worker, concurrency).serve())
        elif concurrency == 1:
            worker.serve()
        else:
            worker.serve_in_threads(concurrency)
    except (BrokenPipeError, ConnectionResetError):
        pass
    if callable(model.closer):
        model.closer()
    return 0


def _not_started(sock, message, trace):
    wire.send(sock, wire.ERROR, 0, {"code": "start", "message": message, "traceback": trace})
    return 1


def _modules(before):
    """What loading has imported from elsewhere than the user's own code: a fork server that has these forks quicker."""
    known = {
        "numpy", "scipy", "sklearn", "pandas", "pyarrow", "joblib", "threadpoolctl", "lightgbm", "xgboost", "torch", "mlflow",
        "pydantic", "PIL", "cloudpickle", "dateutil", "pytz", "packaging", "yaml",
    }
    found = []
    for name in list(sys.modules):
        root = name.partition(".")[0]
        if name not in before and (root in known or root in sys.stdlib_module_names) and name != "__main__":
            found.append(name)
    return found


def _headline(error):
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1][:2_000]


def _traceback(error):
    """Without the frames of this package."""
    details = traceback.TracebackException.from_exception(error)
    seen = details
    while seen is not None:
        frames = [f for f in seen.stack if not f.filename.startswith((_HERE, "<frozen importlib"))]
        seen.stack = traceback.StackSummary.from_list(frames)
        seen = seen.__cause__ or seen.__context__
    text = "".join(details.format())
    return text if len(text) <= _MAX_TRACEBACK else "…" + text[-_MAX_TRACEBACK:]


class _Worker:
    def __init__(self, sock, model):
        self.sock = sock
        self.model = model
        self.reader = wire.Reader(sock)
        self.lock = threading.Lock()
        self.locked = False
        self.cancelled = set()
        import tidemill

        self.tidemill = tidemill

    def call_of(self, frame):
        _kind, flags, number, meta, body = frame
        return loading.Call(number, flags, meta, body, wire.TENSORS, wire.STREAM)

    def send(self, *arguments):
        if not self.locked:
            wire.send(self.sock, *arguments)
            return
        with self.lock:
            wire.send(self.sock, *arguments)

    def prepare(self, call):
        """Sets the request that the function can look at, and makes its arguments."""
        body = b"" if call.tensors else call.body
        request = self.tidemill.Request(call.request_id, call.parameters, call.outputs, call.content_type, body)
        self.tidemill._current.set(request)
        return self.model.arguments(call)

    def answer(self, kind, call, result):
        if not call.tensors:
            if isinstance(result, self.tidemill.Response):
                self.send(kind, call.id, {"c": result.content_type}, 0, (result.content,))
            elif isinstance(result, bytes):
                self.send(kind, call.id, {"c": "application/octet-stream"}, 0, (result,))
            else:
                self.send(kind, call.id, None, 0, (values.to_json(result),))
            return
        named = self.model.named(result)
        if call.outputs:
            there = dict(named)
            unknown = [name for name in call.outputs if name not in there]
            if unknown:
                raise BadInput(f"there is no output `{unknown[0]}`; there are: {', '.join(f'`{n}`' for n in there)}")
            named = [(name, there[name]) for name in call.outputs]
        described, parts = values.encode(named, self.model.declared)
        self.send(kind, call.id, {"t": described}, wire.TENSORS, parts)

    def failed(self, call, error):
        error = scoring.fault_of(error) or error
        if isinstance(error, (BadInput, self.tidemill.BadRequest)):
            said = {"code": "arguments", "message": str(error), "error_code": getattr(error, "error_code", "")}
            self.send(wire.ERROR, call.id, said)
        elif isinstance(error, MemoryError):
            # What is left of the process is not to be trusted with the next call.
            self.send(wire.ERROR, call.id, {"code": "memory", "message": _headline(error)})
            os._exit(1)
        elif isinstance(error, loading.Refused):
            self.send(wire.ERROR, call.id, {"code": "raised", "message": str(error)})
        elif isinstance(error, (BrokenPipeError, ConnectionResetError)):
            raise error
        else:
            trace = _traceback(error)
            print(trace, file=sys.stderr, end="")
            self.send(wire.ERROR, call.id, {"code": "raised", "message": _headline(error), "traceback": trace})

    def work(self, call):
        try:
            arguments, named = self.prepare(call)
            result = self.model.function(*arguments, **named)
            if not self.model.streams:
                self.answer(wire.ANSWER, call, result)
            elif call.stream:
                self.pieces(call, result)
            else:
                self.gathered(call, list(result))
        except Exception as error:
            self.failed(call, error)
        except SystemExit as error:
            self.failed(call, RuntimeError(f"the function left by `sys.exit({error.code!r})`"))

    def pieces(self, call, generator):
        try:
            for piece in generator:
                self.answer(wire.PIECE, call, piece)
                if self.is_cancelled(call.id):
                    break
        finally:
            generator.close()
        self.send(wire.END, call.id)

    def gathered(self, call, pieces):
        if call.tensors:
            raise BadInput("the function gives its answer piece by piece; ask it by a protocol that streams")
        self.answer(wire.ANSWER, call, pieces)

    def is_cancelled(self, number):
        if self.locked:
            return number in self.cancelled
        # Nobody else reads: with one call at a time, all that can have come is that it is not wanted any more.
        ready, _, _ = select.select([self.sock], [], [], 0)
        if ready or self.reader.waiting():
            frame = self.reader.frame()
            if frame is None:
                raise BrokenPipeError
            return frame[0] == wire.CANCEL and frame[2] == number
        return False

    def serve(self):
        while True:
            frame = self.reader.frame()
            if frame is None:
                return
            if frame[0] == wire.CALL:
                self.work(self.call_of(frame))

    def serve_in_threads(self, concurrency):
        self.locked = True
        calls = queue.SimpleQueue()

        def take():
            while True:
                call = calls.get()
                if call is None:
                    return
                try:
                    self.work(call)
                except (BrokenPipeError, ConnectionResetError):
                    return
                finally:
                    self.cancelled.discard(call.id)

        threads = [threading.Thread(target=take, daemon=True) for _ in range(concurrency)]
        for thread in threads:
            thread.start()
        while True:
            frame = self.reader.frame()
            if frame is None:
                break
            if frame[0] == wire.CALL:
                calls.put(self.call_of(frame))
            elif frame[0] == wire.CANCEL:
                self.cancelled.add(frame[2])
        for _ in threads:
            calls.put(None)
        for thread in threads:
            thread.join(1.0)


class _Async:
    """An asynchronous function: calls are tasks of one event loop; a thread reads the socket."""

    def __init__(self, worker, concurrency):
        self.worker = worker
        self.worker.locked = True
        self.tasks = {}

    async def serve(self):
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def read():
            while True:
                try:
                    frame = self.worker.reader.frame()
                except OSError:
                    frame = None
                if frame is None:
                    loop.call_soon_threadsafe(closed.set)
                    return
                loop.call_soon_threadsafe(self.take, frame)

        threading.Thread(target=read, daemon=True).start()
        await closed.wait()
        for task in list(self.tasks.values()):
            task.cancel()

    def take(self, frame):
        if frame[0] == wire.CANCEL:
            task = self.tasks.get(frame[2])
            if task is not None:
                task.cancel()
            return
        call = self.worker.call_of(frame)
        task = asyncio.ensure_future(self.work(call))
        self.tasks[call.id] = task
        task.add_done_callback(lambda _: self.tasks.pop(call.id, None))

    async def work(self, call):
        worker = self.worker
        try:
            arguments, named = worker.prepare(call)
            if not worker.model.streams:
                worker.answer(wire.ANSWER, call, await worker.model.function(*arguments, **named))
                return
            generator = worker.model.function(*arguments, **named)
            try:
                if not call.stream:
                    worker.gathered(call, [piece async for piece in generator])
                    return
                async for piece in generator:
                    worker.answer(wire.PIECE, call, piece)
            finally:
                await generator.aclose()
            worker.send(wire.END, call.id)
        except asyncio.CancelledError:
            worker.send(wire.END, call.id)
        except Exception as error:
            worker.failed(call, error)
        except SystemExit as error:
            worker.failed(call, RuntimeError(f"the function left by `sys.exit({error.code!r})`"))
