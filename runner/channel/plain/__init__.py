"""Channels with any other program at the far end: bare messages, without numbers or acknowledgement."""
