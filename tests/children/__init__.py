"""Programs that tests run as processors: good ones in many languages, and ones that misbehave."""
