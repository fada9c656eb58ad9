"""Mounts and unmounts in the folders given, as quickly as it can, until it is killed."""

import ctypes
import sys

libc = ctypes.CDLL(None)
places = [place.encode() for place in sys.argv[1:]]
while True:
    for place in places:
        libc.mount(b"none", place, b"tmpfs", 0, None)
    for place in places:
        libc.umount2(place, 2)
