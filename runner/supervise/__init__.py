"""Instances, processors, runs and their ledger."""
