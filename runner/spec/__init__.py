"""What the user wrote: documents, loading, validation, schema, and the model made of it."""
