"""A container engine's profile as libseccomp, which all engines use, makes a program of it."""

from __future__ import annotations

import ctypes
import json
import tempfile
from typing import Any

from tests.launch.cbpf import ALLOW, ERRNO

MASKED_EQUAL = 7
EPERM = 1


class Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Libseccomp:
    """Raises OSError where the library is not there."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p

    def number(self, name: str) -> int | None:
        """The number of a call on this machine; negative: it is another machine's; None: it is not known."""
        number = int(self.library.seccomp_syscall_resolve_name(name.encode()))
        return None if number == -1 else number

    def program(self, profile: str, machine: str, audit_machine: int) -> bytes:
        """As runc does it: names that the library does not know are passed over."""
        told: dict[str, Any] = json.loads(profile)
        machines = [each["architecture"] for each in told["archMap"] if not each["subArchitectures"]]
        assert f"SCMP_ARCH_{machine.upper()}" in machines
        assert told["defaultAction"] == "SCMP_ACT_ERRNO"
        context = ctypes.c_void_p(self.library.seccomp_init(ERRNO | EPERM))
        try:
            native = self.library.seccomp_arch_native()
            if ctypes.c_uint32(native).value != audit_machine:
                self.done(self.library.seccomp_arch_add(context, audit_machine))
                self.done(self.library.seccomp_arch_remove(context, native))
            for rule in told["syscalls"]:
                for name in rule["names"]:
                    self.add(context, rule, name)
            with tempfile.TemporaryFile() as file:
                self.done(self.library.seccomp_export_bpf(context, file.fileno()))
                file.seek(0)
                return file.read()
        finally:
            self.library.seccomp_release(context)

    def add(self, context: ctypes.c_void_p, rule: dict[str, Any], name: str) -> None:
        number = self.number(name)
        if number is None:
            return
        action = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"]
        arguments = rule.get("args", [])
        comparisons = (Comparison * len(arguments))()
        for place, argument in zip(range(len(arguments)), arguments, strict=True):
            assert argument["op"] == "SCMP_CMP_MASKED_EQ"
            comparisons[place] = Comparison(argument["index"], MASKED_EQUAL, argument["value"], argument["valueTwo"])
        self.done(self.library.seccomp_rule_add_array(context, action, number, len(arguments), comparisons))

    @staticmethod
    def done(result: int) -> None:
        if result < 0:
            raise OSError(-result, "libseccomp says no")
