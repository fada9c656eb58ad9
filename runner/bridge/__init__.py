"""Ports to channels: batches in, answers out."""
