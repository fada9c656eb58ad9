"""Ports of programs that speak ZeroMQ: a socket of theirs at the other end, where others have a pipe.

`endpoint` lets one socket of the program in at a time. `spout` and `intake` are what the two directions have in common
where a descriptor comes late, may go, and may come again; `plain` is PUSH and PULL for contract `stream`, `dealer` the
connector protocol for `acknowledged`.

The runner speaks ZMTP itself (docs/decisions/0018-zmtp-by-ourselves.md): so it knows what it has handed over, reads
what a dead program has sent to the last byte, and has no queue that nobody sees into.
"""
