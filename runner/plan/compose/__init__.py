"""The Compose project of a pipeline, as values: services, what they share, and the text of the file. Pure."""
