"""The fork server: a warm interpreter that has imported what models need, and forks a worker whenever it is told to.

It never runs a user's code itself. Its standard input is a socket: messages of four bytes of length and JSON, with file descriptors
attached where a worker is to be forked. When that socket closes, everything ends.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

_LENGTH = struct.Struct("<I")
#: A worker whose socket was closed may take this long to end by itself.
_GRACE = 5.0


class _Server:
    def __init__(self, control):
        self.control = control
        self.received = b""
        self.descriptors = []
        #: pid -> when it is ended by force, or None
        self.workers = {}

    def send(self, message):
        data = json.dumps(message).encode()
        self.control.sendall(_LENGTH.pack(len(data)) + data)

    def messages(self):
        """What has arrived; None once the socket is closed."""
        data, descriptors, _flags, _address = socket.recv_fds(self.control, 1 << 16, 16)
        if not data:
            return None
        self.received += data
        self.descriptors += descriptors
        found = []
        while len(self.received) >= 4:
            (length,) = _LENGTH.unpack_from(self.received)
            if len(self.received) < 4 + length:
                break
            found.append(json.loads(self.received[4 : 4 + length]))
            self.received = self.received[4 + length :]
        return found

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.workers.pop(pid, None)
            # What it started itself ends with it.
            _kill_group(pid)
            code = os.waitstatus_to_exitcode(status)
            self.send({"exited": pid, "code": code})

    def end_late_ones(self):
        now = time.monotonic()
        for pid, due in self.workers.items():
            if due is not None and now >= due:
                self.kill(pid)

    def kill(self, pid):
        # Only while it has not been reaped: the number may be another process's afterwards.
        if pid in self.workers:
            _kill_group(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def next_wait(self):
        dues = [due for due in self.workers.values() if due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None


def _kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def import_quietly(names):
    """Imports what is there of `names`; what cannot be imported is the worker's own to complain about."""
    done = []
    for name in names:
        try:
            importlib.import_module(name)
            done.append(name)
        except BaseException:
            continue
    return done


def main():
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    server = _Server(control)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So that forking a worker pays for none of these.
    from tidemill_worker import convert, limits, loading, mlflow_model, scoring, serving, values, wire  # noqa: F401

    gc.collect()
    gc.freeze()
    server.send({"ready": os.getpid(), "python": sys.version.split()[0]})
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ, "control")
    selector.register(wakeup_read, selectors.EVENT_READ, "child")
    while True:
        for key, _ in selector.select(server.next_wait()):
            if key.data == "child":
                while _drain(wakeup_read):
                    pass
                continue
            messages = server.messages()
            if messages is None:
                for pid in list(server.workers):
                    server.kill(pid)
                return
            for message in messages:
                _obey(server, message, [wakeup_read, wakeup_write, selector.fileno()])
        server.reap()
        server.end_late_ones()


def _drain(descriptor):
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def _obey(server, message, inherited):
    if "import" in message:
        import_quietly(message["import"])
        gc.collect()
        gc.freeze()
    elif "kill" in message:
        server.kill(message["kill"])
    elif "retire" in message:
        if message["retire"] in server.workers:
            server.workers[message["retire"]] = time.monotonic() + _GRACE
    elif "fork" in message:
        data, log = server.descriptors[:2]
        del server.descriptors[:2]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(data)
            os.close(log)
            server.send({"forked": message["fork"], "error": str(error)})
            return
        if pid == 0:
            _become_worker(server, inherited, data, log, message["config"], parent)
        os.close(data)
        os.close(log)
        server.workers[pid] = None
        server.send({"forked": message["fork"], "pid": pid})


def _become_worker(server, inherited, data, log, config, parent):
    """The rest of a worker's life; does not return."""
    code = 70
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        server.control.close()
        for descriptor in inherited + server.descriptors:
            os.close(descriptor)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        # Here and not above, so that a fault in it is seen.
        from tidemill_worker import limits, serving

        limits.die_with_parent(parent)
        code = serving.run(socket.socket(fileno=data), config)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        os._exit(code & 0xFF)
