"""How much of a websocket's message has come that is not whole yet, by the lengths of its frames (RFC 6455, 5.2)."""

from __future__ import annotations

_FINAL, _CONTROL, _MASKED = 0x80, 0x08, 0x80
_LENGTH_BYTES = {126: 2, 127: 8}
_MASK_BYTES = 4
_SHORTEST_HEAD_BYTES = 2
_HEAD_END = b"\r\n\r\n"


class Frames:
    """What comes over one connection, from its first byte on: the request, then frames. It judges nothing."""

    def __init__(self) -> None:
        self.pending_bytes = 0
        """Of a message that is not whole."""
        self._request: bytes | None = b""
        """The last bytes of it; None: it has come."""
        self._head = b""
        """Of a frame, as far as it has come."""
        self._left_bytes = 0
        self._final = True
        self._control = False

    @property
    def begun(self) -> bool:
        """Whether the request is over."""
        return self._request is None

    @property
    def whole(self) -> bool:
        """Whether the last message has come to its end, and the last frame."""
        return self._final and not self._left_bytes and not self._head

    def feed(self, data: bytes) -> None:
        """What came next."""
        at = 0 if self._request is None else self._after_request(data)
        while at < len(data):
            if self._left_bytes:
                taken = min(self._left_bytes, len(data) - at)
                self._left_bytes -= taken
                at += taken
                self.pending_bytes += 0 if self._control else taken
            else:
                at = self._read_head(data, at)
            if not self._left_bytes and not self._head:
                self._frame_over()

    def _frame_over(self) -> None:
        if not self._control and self._final:
            self.pending_bytes = 0
        self._control = False

    def _after_request(self, data: bytes) -> int:
        """Where frames begin in `data`."""
        assert self._request is not None
        seen = self._request + data
        end = seen.find(_HEAD_END)
        if end < 0:
            self._request = seen[1 - len(_HEAD_END) :]
            return len(data)
        before = len(self._request)
        self._request = None
        return end + len(_HEAD_END) - before

    def _read_head(self, data: bytes, at: int) -> int:
        """Take what is there of a frame's head; where the rest of `data` begins."""
        while (missing := self._head_bytes - len(self._head)) and at < len(data):
            self._head += data[at : at + missing]
            at += missing
        if missing:
            return len(data)
        length = self._head[1] & ~_MASKED
        size = _LENGTH_BYTES.get(length, 0)
        self._left_bytes = int.from_bytes(self._head[2 : 2 + size], "big") if size else length
        self._control = bool(self._head[0] & _CONTROL)
        if not self._control:
            self._final = bool(self._head[0] & _FINAL)
        self._head = b""
        return at

    @property
    def _head_bytes(self) -> int:
        """How long the head is, as far as is known."""
        if len(self._head) < _SHORTEST_HEAD_BYTES:
            return _SHORTEST_HEAD_BYTES
        masked, length = self._head[1] & _MASKED, self._head[1] & ~_MASKED
        return _SHORTEST_HEAD_BYTES + _LENGTH_BYTES.get(length, 0) + (_MASK_BYTES if masked else 0)
