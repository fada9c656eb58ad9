"""Connector runner: programs in any language as one pipeline."""
