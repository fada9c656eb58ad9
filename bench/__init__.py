"""Benchmarks: ratios of interleaved runs against the same programs on bare pipes, and a few absolute figures."""
