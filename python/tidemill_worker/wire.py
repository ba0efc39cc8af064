"""Frames between the server and a worker: a header of fixed size, a part in JSON, and the raw bytes of tensors or of a body."""

import json
import struct

#: kind, flags, nothing, id of the call, length of the JSON, length of the bytes
HEADER = struct.Struct("<BBHIIQ")

# To the worker.
CALL = 1
CANCEL = 2
# From the worker.
READY = 1
ANSWER = 2
PIECE = 3
END = 4
ERROR = 5

#: The payload is tensors, not a body.
TENSORS = 1
#: The caller wants the answer piece by piece.
STREAM = 2

#: Frames up to this size are read in one go.
_SMALL = 1 << 16


class Reader:
    """Reads frames from a blocking socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray(2 * _SMALL)
        self.view = memoryview(self.buffer)
        self.start = 0
        self.end = 0

    def _fill(self, wanted):
        """Has at least `wanted` bytes in the buffer; False where the other side has closed."""
        if self.start + wanted > len(self.buffer):
            length = self.end - self.start
            self.view[:length] = bytes(self.view[self.start : self.end])
            self.start, self.end = 0, length
        while self.end - self.start < wanted:
            got = self.sock.recv_into(self.view[self.end :])
            if got == 0:
                return False
            self.end += got
        return True

    def waiting(self):
        """Whether a part of the next frame has been read already."""
        return self.end > self.start

    def frame(self):
        """(kind, flags, id, JSON, bytes), or None once the other side has closed."""
        if self.start == self.end:
            self.start = self.end = 0
        if not self._fill(HEADER.size):
            return None
        kind, flags, _, call, meta_length, length = HEADER.unpack_from(self.buffer, self.start)
        self.start += HEADER.size
        if meta_length <= _SMALL:
            if not self._fill(meta_length):
                return None
            meta = bytes(self.view[self.start : self.start + meta_length])
            self.start += meta_length
        else:
            meta = self._large(meta_length)
        if length == 0:
            body = bytearray()
        elif length <= _SMALL:
            if not self._fill(length):
                return None
            # A copy, so that the function may keep it and write into it.
            body = bytearray(self.view[self.start : self.start + length])
            self.start += length
        else:
            body = self._large(length)
        if meta is None or body is None:
            return None
        return kind, flags, call, json.loads(meta) if meta_length else {}, body

    def _large(self, length):
        whole = bytearray(length)
        view = memoryview(whole)
        done = min(length, self.end - self.start)
        view[:done] = self.view[self.start : self.start + done]
        self.start += done
        while done < length:
            got = self.sock.recv_into(view[done:])
            if got == 0:
                return None
            done += got
        return whole


def send(sock, kind, call, meta=None, flags=0, parts=()):
    """Writes a frame; `parts` are bytes-like and go out as they lie in memory."""
    encoded = json.dumps(meta, separators=(",", ":")).encode() if meta else b""
    length = sum(len(part) for part in parts)
    head = HEADER.pack(kind, flags, 0, call, len(encoded), length) + encoded
    if length <= _SMALL:
        sock.sendall(b"".join((head, *parts)) if parts else head)
        return
    pending = [memoryview(part) for part in (head, *parts) if len(part)]
    while pending:
        sent = sock.sendmsg(pending[:64])
        while pending and sent >= len(pending[0]):
            sent -= len(pending.pop(0))
        if sent:
            pending[0] = pending[0][sent:]
