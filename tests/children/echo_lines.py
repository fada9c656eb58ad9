"""The Python program anybody would write: a print for each line."""

import sys

for line in sys.stdin:
    print(line.rstrip("\n"))
