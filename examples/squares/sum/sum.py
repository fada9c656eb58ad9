"""The sum of all numbers that come in."""

import sys

print(sum(int(line) for line in sys.stdin))
