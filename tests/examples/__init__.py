"""Tests of the programs under `examples/`: that each keeps its contract by itself, without a runner."""
