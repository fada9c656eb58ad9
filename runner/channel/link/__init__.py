"""Between two runners: numbered batches with acknowledgement, over any transport that carries whole frames.

The protocol is specified in `docs/link.md`.
"""
