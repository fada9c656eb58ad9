"""What a person can type so that this machine can do more: one command where one is enough."""

from __future__ import annotations

from runner.plan.facts import Engine, Facts, System

BUILD_SHIM = "build it for this machine: python -m runner.launch.shim.build"

_BUBBLEWRAP = {"apt-get": "bubblewrap", "dnf": "bubblewrap", "apk": "bubblewrap", "pacman": "bubblewrap"}
_ENGINE = {"apt-get": "docker.io", "dnf": "moby-engine", "apk": "docker", "pacman": "docker"}
_INSTALL = {"apt-get": "install -y", "dnf": "install -y", "apk": "add", "pacman": "-S --noconfirm"}
_MANAGERS = {
    "debian": "apt-get",
    "ubuntu": "apt-get",
    "fedora": "dnf",
    "rhel": "dnf",
    "centos": "dnf",
    "alpine": "apk",
    "arch": "pacman",
}


def manager(system: System) -> str | None:
    """The program that installs packages here; None: this distribution is not known."""
    return next((_MANAGERS[name] for name in system.distribution if name in _MANAGERS), None)


def install_bubblewrap(system: System) -> str:
    """Get bubblewrap."""
    return _install(system, _BUBBLEWRAP) or "install the package bubblewrap"


def install_engine(system: System) -> str:
    """Get a container engine."""
    return _install(system, _ENGINE) or "install Docker: https://docs.docker.com/engine/install/"


def start_engine(system: System) -> str:
    """Start the engine that is installed."""
    if system.init == "systemd":
        return _as_root(system, "systemctl start docker")
    return _as_root(system, "rc-service docker start" if manager(system) == "apk" else "service docker start")


def join_group(system: System) -> str:
    """Get the right to speak to the engine."""
    command = f"addgroup {system.user} docker" if manager(system) == "apk" else f"usermod -aG docker {system.user}"
    return f"{_as_root(system, command)}, and log in again (who may speak to the engine is as good as root)"


def for_engine(engine: Engine, system: System) -> str:
    """What helps with an engine that cannot be used; only for one with `trouble`."""
    assert engine.trouble is not None
    chosen = engine.chosen_by == "DOCKER_HOST"
    local = "unset DOCKER_HOST, or set it to unix:///var/run/docker.sock" if chosen else "docker context use default"
    start = start_engine(system)
    absent = f"{install_engine(system)}; where it is installed already: {start}"
    return {
        "address": f"use an engine of this machine: {local}",
        "remote": f"use an engine of this machine: {local}",
        "absent": f"correct DOCKER_HOST, or start what is to listen there: {start}" if chosen else absent,
        "permission": join_group(system),
        "refused": start,
        "silent": f"it hangs: look at its log, then {start.replace(' start', ' restart')}",
        "strange": "correct DOCKER_HOST" if chosen else "look at what listens there",
        "elsewhere": "run the runner where the engine runs",
    }[engine.trouble]


def allow_namespaces(facts: Facts) -> str:
    """Make bubblewrap work where it is installed and fails."""
    switches = facts.namespaces
    if switches.most == 0:
        return _as_root(facts.system, "sysctl user.max_user_namespaces=15000")
    if switches.unprivileged is False:
        return _as_root(facts.system, "sysctl kernel.unprivileged_userns_clone=1")
    if switches.apparmor_restricts:
        return _as_root(facts.system, "sysctl kernel.apparmor_restrict_unprivileged_userns=0")
    if facts.system.container is not None:
        return "give the container that the runner is in the right to make namespaces, or run the runner outside of it"
    return "see docs/doctor.md, “bubblewrap cannot make a sandbox”"


def own_users(system: System) -> str:
    """Get a user for each untrusted instance."""
    if system.uid == 0:
        return "start the runner as another user, or with the capabilities SETUID and SETGID and 65,536 users"
    return "run the runner as root, or untrusted images instead of commands"


def delegate(system: System) -> str | None:
    """Get cgroups of one's own; None: no command is known for it here."""
    if system.container is not None and system.uid == 0:
        return "give the container that the runner is in a writable /sys/fs/cgroup"
    if system.init != "systemd":
        return None if system.uid == 0 else "run the runner as root"
    return f"start it by systemd-run {'' if system.uid == 0 else '--user '}--scope -p Delegate=yes connector run …"


def _install(system: System, packages: dict[str, str]) -> str | None:
    found = manager(system)
    return None if found is None else _as_root(system, f"{found} {_INSTALL[found]} {packages[found]}")


def _as_root(system: System, command: str) -> str:
    return command if system.uid == 0 else f"sudo {command}"
