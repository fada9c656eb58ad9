"""A program that plays the runner against any processor command and reports what is wrong: see `__main__`.

The only part of the package that starts programs and reads and writes.
"""
