"""Where the bytes of a buffer lie, for functions in C: `bytes` and views alike, without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from runner.codec.base import Buffer


class _View(ctypes.Structure):
    """A Py_buffer, in the stable interface since Python 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_borrow, _give_back = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
_borrow.argtypes = (ctypes.py_object, ctypes.POINTER(_View), ctypes.c_int)
_give_back.argtypes, _give_back.restype = (ctypes.POINTER(_View),), None


def at_address(function: Callable[[int, int, int], int], data: Buffer, more: int) -> int:
    """`function` of the address of `data`, its length, and `more`."""
    view = _View()
    _borrow(data, view, 0)
    try:
        return function(view.buf, view.len, more)
    finally:
        _give_back(view)
