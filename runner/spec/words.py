"""What somebody meant who wrote an unknown word: near misses, and the words of other tools."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

KEYS_ELSEWHERE = {
    "environment": ("env",),
    "environ": ("env",),
    "volumes": ("mounts",),
    "binds": ("mounts",),
    "working_dir": ("directory",),
    "workdir": ("directory",),
    "cwd": ("directory",),
    "dir": ("directory",),
    "healthcheck": ("ready", "live"),
    "health": ("live",),
    "readiness": ("ready",),
    "readiness_probe": ("ready",),
    "liveness": ("live",),
    "liveness_probe": ("live",),
    "read": ("reads",),
    "write": ("writes",),
    "input": ("reads",),
    "inputs": ("reads",),
    "stdin": ("reads",),
    "from": ("reads",),
    "output": ("writes",),
    "outputs": ("writes",),
    "stdout": ("writes",),
    "to": ("writes",),
    "cmd": ("command",),
    "run": ("command",),
    "exec": ("command",),
    "args": ("command",),
    "uses": ("use",),
    "with": ("params",),
    "parameters": ("params",),
    "instances": ("replicas",),
    "numprocs": ("replicas",),
    "scale": ("replicas",),
    "deploy": ("replicas", "resources"),
    "restart_policy": ("restart",),
    "autorestart": ("restart",),
    "stop_grace_period": ("stop",),
    "stop_signal": ("stop",),
    "stopsignal": ("stop",),
    "limits": ("resources",),
    "networks": ("network",),
    "network_mode": ("network",),
    "services": ("processors",),
    "tasks": ("processors",),
    "steps": ("processors",),
    "queues": ("channels",),
    "topics": ("channels",),
    "type": ("kind",),
    "size": ("capacity",),
    "mem": ("memory", "resources"),
    "mem_limit": ("memory", "resources"),
    "memory": ("resources",),
    "cpu": ("cpus", "resources"),
    "cpus": ("resources",),
    "ulimits": ("resources",),
    "grace": ("stop",),
    "signal": ("stop",),
    "backoff": ("restart",),
    "interval": ("every",),
    "retries": ("failures",),
    "start_period": ("timeout",),
}
"""Words of other tools, and the keys that say it here; used where one of those keys is allowed."""

NOT_NEEDED = {
    "depends_on": "leave it out: the channels order the processors, and messages wait until a reader is ready",
    "line": "a line tells that a program got ready, not that it still is well; use file, tcp, http or command",
    "after": "leave it out: the channels order the processors",
    "requires": "leave it out: the channels order the processors",
    "version": "leave it out: the file has no version",
    "build": "how an image is made stands in the processor.toml of its folder; write use",
    "ports": "a processor's own sockets need no entry here; channels join processors",
    "container_name": "leave it out: a processor is known by the name of its table",
    "hostname": "leave it out: channels join processors, so none needs a name to be found by",
    "privileged": "no processor gets rights over this machine; name what it needs in mounts and network",
    "cap_add": "no processor gets rights over this machine; name what it needs in mounts and network",
    "shell": 'no shell runs; write command = ["sh", "-c", "..."] where you need one',
    "logging": "leave it out: what a program writes to stderr is its log",
}
"""Words of other tools for which nothing has to be written here."""


def meant(word: str, known: Collection[str]) -> str | None:
    """What to write instead of the unknown key `word` where `known` are allowed, as a sentence; None: no idea."""
    plain = word.lower().replace("-", "_")
    elsewhere = [key for key in KEYS_ELSEWHERE.get(plain, ()) if key in known]
    if elsewhere:
        return "write " + " or ".join(f'"{key}"' for key in elsewhere)
    if plain in NOT_NEEDED:
        return NOT_NEEDED[plain]
    if plain in KEYS_ELSEWHERE:
        return None
    close = nearest(word, known)
    if close is None and (foreign := nearest(plain, KEYS_ELSEWHERE, cutoff=0.8)):
        return meant(foreign, known)
    return f'did you mean "{close}"?' if close is not None else None


def may_mean(word: str, struct: type[Struct], *keys: str) -> bool:
    """Whether the unknown key `word` of `struct` may stand for one of `keys`; false for a known key."""
    if word in struct.__struct_fields__:
        return False
    hint = meant(word, struct.__struct_fields__)
    return hint is None or any(f'"{key}"' in hint for key in keys)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The one of `known` that `word` most likely misspells; None when none is near."""
    from difflib import get_close_matches

    plain = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    matches = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return plain[matches[0]] if matches else None
