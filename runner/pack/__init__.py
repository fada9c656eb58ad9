"""Images of processors, and the lock file that says which ones a pipeline was tried with."""
