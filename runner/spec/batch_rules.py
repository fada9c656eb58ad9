"""What goes with contract `batch`, and what does not: its program is started anew for each batch of messages."""

from __future__ import annotations

from runner.spec.findings import Scope
from runner.spec.model import BATCH_FILE, Contract
from runner.spec.processor import Resolved

_ONLY = ("batch", "max_outputs")
_MEANINGLESS = {
    "ready": ("a program that is run once per batch gets its batch at its start", "leave it out"),
    "live": ("a program that is run once per batch is well when it ends with exit 0", "write stall to bound a run"),
    "in_flight": ("the batch is what is in flight", "bound it with batch = { messages = …, bytes = … }"),
}


def check_batch(resolved: Resolved) -> None:
    """Every rule of the contract that needs one processor only."""
    processor, scope, written = resolved.processor, resolved.scope, resolved.written
    if processor.contract is not Contract.BATCH:
        for key in _ONLY:
            if key in written:
                scope.error((key,), 'is for contract = "batch"', 'write contract = "batch", or leave it out', at="key")
        return
    for key, (why, remedy) in _MEANINGLESS.items():
        if key in written:
            scope.error((key,), why, remedy, at="key")
    _check_ports(resolved, scope)
    _check_file(resolved, scope)


def _check_ports(resolved: Resolved, scope: Scope) -> None:
    processor = resolved.processor
    if all(port.name != "stdin" for port in processor.reads):
        scope.error(
            ("contract",),
            "a batch is what is read on stdin, and nothing is",
            'write reads = "CHANNEL"' + (", also where the batch is a file" if processor.batch_as_file else ""),
        )
    for port in processor.reads:
        if port.name != "stdin":
            scope.error(
                ("reads", port.name),
                "a program that is run once per batch has no other input: it would begin in the middle of it each time",
                "merge the channels into stdin, or let a program with another contract join them",
                at="key",
            )


def _check_file(resolved: Resolved, scope: Scope) -> None:
    """`{batch}` means the file of the batch and nothing else, and stands where the runner puts it in."""
    processor, written = resolved.processor, resolved.written
    if BATCH_FILE[1:-1] in processor.params:
        scope.error(
            ("contract",),
            f'{BATCH_FILE} is the file of a batch, and its processor.toml has a param "batch"',
            "rename it",
        )
    if any(BATCH_FILE in word for word in processor.entrypoint or ()):
        where = ("entrypoint",) if "entrypoint" in written else ()
        scope.error(where, f"{BATCH_FILE} is put into a command only", "write it in command")
