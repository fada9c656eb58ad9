"""Whoever follows the events: log, table, report."""
