"""Keys of one processor that do not go together."""

from __future__ import annotations

from runner.spec.batch_rules import check_batch
from runner.spec.model import Contract, Resume
from runner.spec.processor import Resolved
from runner.spec.zeromq_rules import check_bridge


def check_processor(resolved: Resolved, *, joined: bool) -> None:
    """Every rule that needs one processor only. Not `joined`: its reads or writes were wrong and are not judged."""
    if joined:
        _check_source(resolved)
        _check_contract(resolved)
        _check_frames(resolved)
        check_batch(resolved)
        _check_stdout(resolved)
        check_bridge(resolved)
    _check_raw(resolved)
    _check_poison(resolved)


def _check_poison(resolved: Resolved) -> None:
    """Where a message can be blamed for a death, and there are deaths enough."""
    processor, scope = resolved.processor, resolved.scope
    if "poison" not in resolved.written:
        return
    if processor.contract is Contract.STREAM:
        message = 'contract = "stream" does not tell which message is in work, so none can be set aside'
        scope.error(("poison",), message, 'leave it out, or write contract = "one-to-one" or "batch"', at="key")
    elif processor.restart.when == "never" or processor.restart.limit.count < processor.poison.after:
        scope.warning(
            ("poison",),
            "restart allows fewer deaths than make a message suspect, so the processor fails first",
            f"let restart.limit allow at least {processor.poison.after}",
            at="key",
        )


def _check_source(resolved: Resolved) -> None:
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    if not processor.is_source:
        if "resume" in written:
            scope.error(("resume",), "is for sources, and this processor reads", "leave it out", at="key")
        return
    if processor.resume is Resume.NONE and "restart" in written and processor.restart.when != "never":
        scope.error(
            ("restart",),
            'a source with resume = "none" is never restarted: the runner cannot know what to send again',
            'say with resume what a restart means ("skip", "self" or "live"), or write restart = "never"',
            at="key",
        )
    if not processor.writes and processor.contract is Contract.STREAM:
        scope.warning((), "neither reads nor writes a channel", "its stdout is its log", at="key")
    for key, what in (("in_flight", "nothing is handed to it"), ("stall", "it has no input to answer")):
        if key in written:
            scope.warning((key,), f"means nothing for a source: {what}", "leave it out", at="key")


def _check_contract(resolved: Resolved) -> None:
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    one_to_one = processor.contract is Contract.ONE_TO_ONE
    if one_to_one and all(port.name != "stdin" for port in processor.reads):
        scope.error(
            ("contract",), "one-to-one answers what is read on stdin, and nothing is", 'write reads = "CHANNEL"'
        )
    if processor.contract is Contract.STREAM and processor.in_flight.messages is not None:
        scope.error(
            ("in_flight", "messages"),
            f'contract = "{processor.contract}" acknowledges at the end, so messages cannot be counted out',
            'bound the bytes, or write contract = "one-to-one" or "acknowledged"',
            at="key",
        )
    if processor.order == "keep" and not one_to_one and "order" in written:
        scope.error(
            ("order",),
            'only the answers of contract = "one-to-one" have an order to keep',
            'leave it out, or write contract = "one-to-one"',
        )


def _check_frames(resolved: Resolved) -> None:
    """Under `acknowledged` all ports go through stdin and stdout, as frames of the connector protocol."""
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    if processor.contract is not Contract.ACKNOWLEDGED:
        return
    if not processor.reads and not processor.writes:
        scope.error(("contract",), "neither reads nor writes a channel, so there is nothing to acknowledge", "join it")
    if any(port.name == "stderr" for port in processor.writes):
        scope.error(("writes",), "stderr is the log of an acknowledged program, not a port", "name a port of your own")
    if processor.guard.kind != "none" and "guard" in written:
        scope.error(("guard",), "there is nothing but frames on stdout, and nothing to guard", "leave it out", at="key")


def _check_stdout(resolved: Resolved) -> None:
    processor, scope = resolved.processor, resolved.scope
    if processor.guard.kind != "none" and processor.log_stdout:
        scope.warning(("guard",), "no channel gets its stdout, so there is nothing to guard", "leave it out", at="key")
    for port, table in _unjoined(resolved):
        scope.warning((table,), f'its port "{port}" is joined to no channel', "its variable is not set then", at="key")


def _unjoined(resolved: Resolved) -> list[tuple[str, str]]:
    """Named ports that the processor.toml declares and the pipeline leaves open: (port, "reads" or "writes")."""
    joined = {
        "reads": {port.name for port in resolved.processor.reads},
        "writes": {port.name for port in resolved.processor.writes},
    }
    return [
        (port, side)
        for side, ports in resolved.declared.items()
        if joined[side] <= {*ports, "stderr"}
        for port in ports
        if port not in joined[side] and port not in {"stdin", "stdout", "stderr"}
    ]


def _check_raw(resolved: Resolved) -> None:
    """With `raw` a chunk is a message: it cannot be told apart from its neighbours once they are mixed."""
    processor, scope = resolved.processor, resolved.scope
    ports = [*processor.reads, *processor.writes]
    raw = [port for port in ports if port.codec == "raw"]
    if processor.contract is Contract.ONE_TO_ONE:
        bound = {port.codec for port in ports if port.name in {"stdin", "stdout"}} | {processor.stdout_codec}
        if "raw" in bound:
            scope.error(("contract",), 'codec "raw" has no messages that could be answered one to one', _REFRAME)
    what = {Contract.ACKNOWLEDGED: "acknowledged", Contract.BATCH: "put into batches"}.get(processor.contract)
    if what is not None and any(port.codec == "raw" for port in ports):
        scope.error(("contract",), f'codec "raw" has no messages that could be {what}', _REFRAME)
    if not raw:
        return
    if processor.replicas > 1:
        scope.error(("replicas",), 'codec "raw" has no messages to share out among replicas', _REFRAME)
    for port in processor.reads:
        if port.codec == "raw" and len(port.channels) > 1:
            scope.error(("reads",), f'codec "raw": channels cannot be merged into {port.name}', _REFRAME)
    stdout = next((port for port in processor.writes if port.name == "stdout"), None)
    if processor.guard.kind != "none" and stdout is not None and stdout.codec == "raw":
        scope.error(("guard",), 'codec "raw" has no messages to guard', _REFRAME)
    if processor.is_source and processor.resume in {Resume.SKIP, Resume.SELF}:
        scope.error(("resume",), 'codec "raw" has no messages to count, so nobody knows where to go on', 'write "live"')


_REFRAME = 'use "lines", "null" or "length-prefixed"'
