"""Logs what it reads: its stdout is no port."""

import shutil
import sys

shutil.copyfileobj(sys.stdin, sys.stdout)
