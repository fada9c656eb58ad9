"""The numbers from 1 to the one given, one a line."""

import sys

for number in range(1, int(sys.argv[1]) + 1):
    print(number)
