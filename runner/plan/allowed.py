"""What an untrusted processor is allowed, and where that is more than the profile gives by itself. Pure."""

from __future__ import annotations

import msgspec

from runner.spec.model import UNTRUSTED_RESOURCES, Mount, Pipeline, Processor, Resources
from runner.units import format_size

_LIMITS = {"memory_bytes": "memory", "cpus": "cpus", "pids": "pids", "files": "files", "disk_bytes": "disk"}


class Allowed(msgspec.Struct, frozen=True):
    """What one untrusted processor may use and see.

    `sees`: files and folders of this machine, "rw" behind those it may write; `resources` by the file's words; `env`
    and `secrets`: names of variables. `loosened`: each thing that is more than the profile's own.
    """

    home: str
    network: str
    sees: tuple[str, ...]
    resources: dict[str, str]
    env: tuple[str, ...]
    secrets: tuple[str, ...]
    loosened: tuple[str, ...]


def untrusted(pipeline: Pipeline) -> dict[str, Allowed]:
    """All untrusted processors, in the order of the file."""
    return {name: allowed(spec) for name, spec in pipeline.processors.items() if spec.untrusted}


def allowed(spec: Processor) -> Allowed:
    """What the untrusted processor `spec` is allowed."""
    folder = () if spec.template is None or spec.home != "sandbox" else (str(spec.template),)
    return Allowed(
        home=spec.home,
        network=spec.network,
        sees=(*folder, *map(_mount, spec.mounts)),
        resources=_limits(spec.resources),
        env=tuple(spec.env),
        secrets=tuple(spec.secrets),
        loosened=_loosened(spec),
    )


def sentence(name: str, what: Allowed) -> str:
    """The same for people, on one line."""
    sees = ", ".join(what.sees) or "no files of this machine"
    limits = ", ".join(f"{key} {value}" for key, value in what.resources.items())
    more = f"; allowed beyond the profile: {', '.join(what.loosened)}" if what.loosened else ""
    return f"{name} is untrusted, in a {what.home}: network {what.network}, sees {sees}; {limits}{more}"


def _mount(mount: Mount) -> str:
    where = str(mount.source) if mount.target == str(mount.source) else f"{mount.source} at {mount.target}"
    return f"{where} (rw)" if mount.writable else where


def _limits(resources: Resources) -> dict[str, str]:
    return {
        word: format_size(value) if field.endswith("_bytes") else f"{value:g}"
        for field, word in _LIMITS.items()
        if (value := getattr(resources, field)) is not None
    }


def _loosened(spec: Processor) -> tuple[str, ...]:
    found = [] if spec.network == "none" else [f"network {spec.network}"]
    found += [f"mount {_mount(mount)}" for mount in spec.mounts]
    own, usual = _limits(spec.resources), _limits(UNTRUSTED_RESOURCES)
    for field, word in _LIMITS.items():
        if getattr(spec.resources, field) > getattr(UNTRUSTED_RESOURCES, field):
            found.append(f"{word} {own[word]} instead of {usual[word]}")
    found += [f"env {name}" for name in spec.env]
    found += [f"secret {name}" for name in spec.secrets]
    return tuple(found)
