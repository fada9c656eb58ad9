"""Channels over a NATS server: its streams (JetStream) keep the messages between the two runners."""
