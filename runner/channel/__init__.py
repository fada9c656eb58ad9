"""Channels: one file per kind."""
