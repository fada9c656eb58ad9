"""Connector protocol 1, the runner's side: frames in, frames out, no input or output of its own.

`docs/protocol.md` is the specification. `frames` says what there is, `decoder` reads what an untrusted program wrote,
`encoder` writes what the runner says, `session` knows what is allowed when. `conformance` is a program that plays the
runner against any command.
"""
