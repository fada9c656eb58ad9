"""Time as a parameter: whatever decides by time takes a clock."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns monotonic seconds; only differences mean something."""

monotonic: Clock = time.monotonic
