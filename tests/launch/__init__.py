"""Tests of the launchers and of the shim."""
