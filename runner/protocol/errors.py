"""What a program did against the protocol: a code from the table in docs/protocol.md, and where."""

from __future__ import annotations

from runner.errors import ContractError

REMEDIES = {
    "header-too-long": "a header is one line of at most 8 KiB; is something printed to stdout that is no frame?",
    "bad-header": "a header is a line of words with one space between them; is something printed to stdout?",
    "unknown-kind": "print to stderr instead of stdout, and count the LENGTH of the frame before in bytes",
    "missing-field": "see the table of frames in docs/protocol.md",
    "bad-number": "numbers are 1 to 16 decimal digits, and at most 9007199254740991",
    "bad-field": "see the table of frames in docs/protocol.md",
    "payload-too-long": "raise max_message, or send less at a time",
    "cut-short": "write each frame as a whole and flush before the program ends",
    "not-ready": "send `ready 0 1` before anything but `log`",
    "twice-ready": "send `ready` once",
    "wrong-version": "the version that this runner speaks is 1",
    "unknown-port": "name the port under `writes`",
    "not-in-flight": "use the delivery number of a message that has come and is not answered yet",
    "out-of-order": "a program that is stateful answers its messages in the order in which they came",
    "not-stateful": "open the session with `ready 0 1 stateful=yes`",
    "wrong-state-number": "number the states of a session 1, 2, 3, ...",
    "wrong-pong": "answer each `ping` once, with its token",
    "after-end": "`end` is the last frame",
}
"""Every code there is, and what to do about it."""


class ProtocolError(ContractError):
    """`code` is a key of REMEDIES; `frame` counts the frames of the session from 1, `offset` its bytes from 0.

    `offset` is where the bad frame begins, or None where only the frame is known. Never retried: the same program
    would do it again.
    """

    def __init__(self, code: str, what: str, *, frame: int, offset: int | None = None) -> None:
        self.code = code
        self.frame = frame
        self.offset = offset
        place = f"frame {frame:,}" if offset is None else f"frame {frame:,}, at byte {offset:,} of what it wrote"
        super().__init__(f"{what} ({code}; {place})", remedy=REMEDIES[code])
