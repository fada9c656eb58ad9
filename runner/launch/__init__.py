"""Launchers: one file per home."""
