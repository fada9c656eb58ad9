"""Asks the container engine what it is, over its socket, in one bounded request.

Without the docker package: importing that takes ten times as long as the answer. See the Engine API, `GET /info`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from runner.plan.facts import Engine, System, Trouble

LIMIT_S = 3.0
DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_MOST_BYTES = 4 << 20
_REQUEST = b"GET /info HTTP/1.0\r\nHost: engine\r\n\r\n"  # 1.0: the answer ends where the connection does
_CREDENTIALS = struct.Struct("3i")


class _Info(msgspec.Struct, rename="pascal"):
    """What matters of `GET /info`."""

    server_version: str
    architecture: str = ""
    kernel_version: str = ""
    security_options: list[str] | None = None
    cgroup_version: str = "1"
    cgroup_driver: str = ""
    driver: str = ""
    live_restore_enabled: bool = False
    memory_limit: bool = False
    swap_limit: bool = False
    cpu_cfs_quota: bool = False
    pids_limit: bool = False


class _Unusable(Exception):  # noqa: N818 - not an error of ours, but what was found
    """Why no answer came."""

    def __init__(self, trouble: Trouble, problem: str) -> None:
        self.trouble = trouble
        self.problem = problem
        super().__init__(problem)


def look(system: System, environ: Mapping[str, str] = os.environ, *, within_s: float = LIMIT_S) -> Engine:
    """The engine that would be used, found within `within_s` seconds."""
    address, chosen_by = engine_address(environ)
    package = _package_version()
    try:
        path = _socket_path(address, chosen_by)
        info, api, peer = _ask(path, time.monotonic() + within_s, within_s)
        _same_machine(info, peer, system)
    except _Unusable as why:
        return Engine(address=address, chosen_by=chosen_by, trouble=why.trouble, problem=why.problem, package=package)
    options = [part for option in info.security_options or [] for part in option.split(",")]
    return Engine(
        address=address,
        chosen_by=chosen_by,
        package=package,
        version=info.server_version,
        api=api,
        arch={"amd64": "x86_64", "arm64": "aarch64"}.get(info.architecture, info.architecture),
        rootless="name=rootless" in options,
        remapped="name=userns" in options,
        seccomp="name=seccomp" in options,
        hierarchy=f"v{info.cgroup_version}",
        cgroup_driver=info.cgroup_driver,
        storage=info.driver,
        live_restore=info.live_restore_enabled,
        memory=info.memory_limit,
        swap=info.swap_limit,
        cpus=info.cpu_cfs_quota,
        pids=info.pids_limit,
    )


def engine_address(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The engine's address and what chose it, as the docker command does it; then a rootless engine of this user."""
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"], "DOCKER_HOST"
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/", ".docker"))
    context = environ.get("DOCKER_CONTEXT") or _field(folder / "config.json", "currentContext")
    if context and context != "default":
        digest = hashlib.sha256(context.encode()).hexdigest()
        host = _field(folder / "contexts" / "meta" / digest / "meta.json", "Endpoints", "docker", "Host")
        return host or "", f"the docker context {context}"
    rootless = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "docker.sock")
    with contextlib.suppress(OSError):
        if not Path(DEFAULT_ADDRESS.removeprefix("unix://")).exists() and rootless.exists():
            return f"unix://{rootless}", "the rootless engine of this user"
    return DEFAULT_ADDRESS, "the default"


def _field(file: Path, *keys: str) -> str | None:
    """A text in a JSON file; None when the file or the text is not there."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _package_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("docker")
    except PackageNotFoundError:
        return None


def _socket_path(address: str, chosen_by: str) -> str:
    kind, separator, path = address.partition("://")
    if not separator or not kind:
        raise _Unusable("address", f"{chosen_by} names no address of an engine: {address or 'nothing'}")
    if kind != "unix":
        raise _Unusable(
            "remote",
            f"the engine {address} is on another machine, or is not known to be on this one ({chosen_by}), "
            "and a program's pipes do not reach there",
        )
    if not path.startswith("/"):
        raise _Unusable("address", f"{address} is no absolute path ({chosen_by})")
    return path


def _ask(path: str, deadline_s: float, within_s: float) -> tuple[_Info, str, int]:
    """What the engine at `path` says of itself, its API version, and the process id of who listens there.

    That id is 0 where the process is outside of our own pid namespace (unix(7), SO_PEERCRED).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(within_s)
            connection.connect(path)
            peer = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[
                0
            ]
            connection.sendall(_REQUEST)
            answer = _read(connection, deadline_s)
        except (TimeoutError, BlockingIOError) as error:  # the second: its queue of connections is full
            raise _Unusable("silent", f"the engine at {path} does not answer within {within_s:g} s") from error
        except FileNotFoundError as error:
            raise _Unusable("absent", f"no engine is there: there is no socket {path}") from error
        except PermissionError as error:
            raise _Unusable("permission", f"this user may not speak to the engine at {path}") from error
        except ConnectionRefusedError as error:
            raise _Unusable("refused", f"the engine is not running: nobody listens at {path}") from error
        except OSError as error:  # the path is too long, or leads through a file
            raise _Unusable("address", f"{path} cannot be an engine: {error.strerror or error}") from error
    return (*_parsed(answer, path), peer)


def _read(connection: socket.socket, deadline_s: float) -> bytes:
    """All that comes until the end, `_MOST_BYTES` at most. Raises TimeoutError after the deadline."""
    answer = bytearray()
    while len(answer) < _MOST_BYTES:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(1 << 16)
        if not piece:
            break
        answer += piece
    return bytes(answer)


def _parsed(answer: bytes, path: str) -> tuple[_Info, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    if len(status.split()) < 2 or status.split()[1] != "200":
        raise _Unusable("strange", f"what listens at {path} does not answer as an engine does")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    try:
        return msgspec.json.decode(body, type=_Info), headers.get("api-version", "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unusable("strange", f"what listens at {path} does not answer as an engine does") from error


def _same_machine(info: _Info, peer: int, system: System) -> None:
    """An engine mounts our shim and our sockets into containers: it must see the files that we see."""
    if info.kernel_version and info.kernel_version != system.kernel:
        raise _Unusable(
            "elsewhere",
            f"the engine runs on another machine or in a virtual one (kernel {info.kernel_version}, here "
            f"{system.kernel}), and a program's pipes do not reach there",
        )
    if peer == 0 and system.container is not None:
        raise _Unusable(
            "elsewhere",
            f"the runner is in a container ({system.container}) and the engine outside of it: they see different files",
        )
