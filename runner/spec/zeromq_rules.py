"""Keys of a processor that do not go together with `bridge = "zeromq"`, or with its absence."""

from __future__ import annotations

from runner.spec.model import Contract
from runner.spec.processor import Resolved

_ANSWERS = {
    Contract.ONE_TO_ONE: "nobody can see which message a program has taken out of its socket's queue",
}


def check_bridge(resolved: Resolved) -> None:
    """Every rule about the bridge that needs one processor only."""
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    if processor.bridge == "stdio":
        if "end" in written:
            scope.error(("end",), 'goes with bridge = "zeromq": a pipe has an end of its own', "leave it out", at="key")
        return
    if processor.contract not in {Contract.STREAM, Contract.ACKNOWLEDGED}:
        why = _ANSWERS.get(processor.contract, "each run of it has an input and an output of its own")
        scope.error(
            ("contract",),
            f'bridge = "zeromq" does not go with contract = "{processor.contract}": {why}',
            'write contract = "stream" (plain sockets) or "acknowledged" (the connector protocol)',
        )
        return
    if any(port.name == "stderr" for port in processor.writes):
        scope.error(("writes",), "stderr is the log of a program that speaks ZeroMQ, not a port", "name another port")
    if processor.guard.kind != "none" and "guard" in written:
        scope.error(("guard",), "its stdout is its log, and nothing else is on its sockets", "leave it out", at="key")
    if processor.contract is Contract.STREAM:
        _check_plain(resolved)
    elif "end" in written:
        scope.error(("end",), "the connector protocol has an end of its own", "leave it out", at="key")


def _check_plain(resolved: Resolved) -> None:
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    if "codec" in written:
        scope.error(("codec",), "a message of ZeroMQ is a message, and needs no codec", "leave it out", at="key")
    if processor.is_source and "end" in written:
        scope.error(("end",), "it reads nothing that could end", "leave it out", at="key")
