"""A sink that counts numbered lines and checks their order; says both on stderr, exits 1 where one is out of order.

usage: check_order.py [EXPECTED_COUNT]
"""

import sys

from messages import number_of

expected = 1
for line in sys.stdin.buffer:
    number = number_of(line)
    if number != expected:
        sys.exit(f"out of order: {number} came where {expected} was due")
    expected += 1
print(f"in order: {expected - 1}", file=sys.stderr)
if len(sys.argv) > 1 and int(sys.argv[1]) != expected - 1:
    sys.exit(f"{sys.argv[1]} messages were due")
