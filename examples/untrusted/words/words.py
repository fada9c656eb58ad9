"""Some words."""

import os

assert os.environ["TOKEN"], "it has its secret"
for word in ("one", "two", "three"):
    print(word)
