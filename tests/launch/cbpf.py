"""Follows a classic BPF program of seccomp(2) by hand, as the kernel would."""

from __future__ import annotations

import struct
from collections.abc import Sequence

ALLOW, ERRNO, KILL_THREAD, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0, 0x80000000
MOST_INSTRUCTIONS = 4096
LOAD, AND, RETURN, JUMP, IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35, 0x45
CONDITIONS = {IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_ANY}
DATA_BYTES = 64

Instruction = tuple[int, int, int, int]


def parse(program: bytes) -> list[Instruction]:
    """Its instructions; what seccomp(2) would not take is an AssertionError (see bpf_check_classic of the kernel)."""
    instructions: list[Instruction] = [*struct.iter_unpack("<HBBI", program)]
    assert 0 < len(instructions) <= MOST_INSTRUCTIONS
    for at, (code, true, false, value) in enumerate(instructions):
        assert code in {LOAD, AND, RETURN, JUMP} | CONDITIONS, hex(code)
        if code == LOAD:
            assert value % 4 == 0
            assert value < DATA_BYTES
        if code in CONDITIONS:
            assert at + 1 + max(true, false) < len(instructions)
        if code == JUMP:
            assert at + 1 + value < len(instructions)
    assert instructions[-1][0] == RETURN
    return instructions


def follow(program: list[Instruction], machine: int, number: int, arguments: Sequence[int] = ()) -> tuple[int, int]:
    """What the program answers to one call, and after how many instructions."""
    padded = [value & (1 << 64) - 1 for value in (*arguments, *(0,) * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, machine, 0, *padded)
    at = taken = accumulator = 0
    while True:
        code, true, false, value = program[at]
        at, taken = at + 1, taken + 1
        if code == RETURN:
            return value, taken
        if code == LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == AND:
            accumulator &= value
        elif code == JUMP:
            at += value
        else:
            holds = {
                IF_EQUAL: accumulator == value,
                IF_GREATER: accumulator > value,
                IF_AT_LEAST: accumulator >= value,
                IF_ANY: accumulator & value != 0,
            }[code]
            at += true if holds else false
