"""The seccomp filter, lived under by programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from runner.launch.seccomp import bpf_program, docker_profile
from runner.launch.syscalls import NUMBERS
from tests.children.build import Programs, programs
from tests.conftest import need_image
from tests.hostile.calls import build_attempt
from tests.launch.test_seccomp import ARGUMENTS, LIMIT_S, REFUSED, UNHEARD, answer

__all__ = ["programs"]  # the fixture
EVERYDAY = Path(__file__).parent / "everyday"

NOT_CALLS = {"kernel_memory", "kernel_settings", "setuid_program", "setuid_root", "sysrq"}
"""Attempts that other walls are for."""
KILLED = {"i386_call", "x32_call"}


@pytest.fixture(scope="session")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of attempts; its folder may be entered by everybody."""
    folder = tmp_path_factory.mktemp("attempt")
    folder.chmod(0o755)
    return build_attempt(folder)


@pytest.fixture(scope="session")
def filter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.machine() not in NUMBERS:
        pytest.skip(f"there is no filter for {platform.machine()}")
    file = tmp_path_factory.mktemp("filter") / "filter"
    file.write_bytes(bpf_program(platform.machine()))
    return file


def sandboxed(
    bwrap: str, command: list[str], filter_file: Path | None, *shown: Path, capable: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run it in a sandbox whose only wall that matters is the filter; `capable`: with all capabilities."""
    words = [bwrap, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-all"]
    words += [word for path in shown for word in ("--ro-bind", str(path), str(path))]
    words += ["--new-session", "--die-with-parent", *(("--cap-add", "ALL") if capable else ())]
    descriptor = os.open(filter_file or os.devnull, os.O_RDONLY)
    try:
        words += ["--seccomp", str(descriptor)] if filter_file else []
        return subprocess.run(
            [*words, "--", *command],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    finally:
        os.close(descriptor)


def every_attempt(attempt: Path) -> list[str]:
    return ["sh", "-c", f'for each in $({attempt} --list); do {attempt} "$each"; done']


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, str | None]:
    """The error of each attempt, None where it worked."""
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line["worked"] is (line["errno"] is None) for line in lines)
    return {line["attempt"]: line["errno"] for line in lines}


def as_expected(found: dict[str, str | None]) -> dict[str, str | None]:
    expected: dict[str, str | None] = dict.fromkeys(found, "EPERM")
    expected |= {"clone3_user": "ENOSYS"} | {name: "SIGSYS" for name in KILLED if name in found}
    return {name: error for name, error in expected.items() if name not in NOT_CALLS}


def calls_of(found: dict[str, str | None]) -> dict[str, str | None]:
    return {name: error for name, error in found.items() if name not in NOT_CALLS}


def test_attempts_fail_in_a_sandbox_that_is_open_otherwise(bubblewrap: str, attempt: Path, filter_file: Path) -> None:
    """All that can be given but the filter is given: the same attempts work there without it."""
    capable = os.geteuid() == 0
    run = every_attempt(attempt)
    without_it = outcomes(sandboxed(bubblewrap, run, None, attempt.parent, capable=capable))
    with_it = outcomes(sandboxed(bubblewrap, run, filter_file, attempt.parent, capable=capable))
    assert calls_of(with_it) == as_expected(with_it)
    worked = {name for name, error in calls_of(without_it).items() if error is None}
    assert {"keyctl", "process_madvise_self", "kcmp_self", "socket_udplite"} <= worked
    assert len(worked) > (30 if capable else 8)


def test_every_refused_number_is_refused_by_the_kernel(bubblewrap: str, attempt: Path, filter_file: Path) -> None:
    machine = platform.machine()
    numbers = {str(number): answer(machine, number) for number in range(480)}
    names = {REFUSED: "EPERM", UNHEARD: "ENOSYS"}
    asked = {number: names[found] for number, found in numbers.items() if found in names}
    others = {"uretprobe", "uprobe"}  # newer kernels ask no filter about these
    for name in others | {name for name, *_ in ARGUMENTS}:
        asked.pop(str(NUMBERS[machine].get(name)), None)
    assert len(asked) > 100
    found = outcomes(sandboxed(bubblewrap, [str(attempt), "--calls", *asked], filter_file, attempt.parent))
    assert found == asked


@pytest.mark.engine
def test_attempts_fail_in_a_container_that_is_open_otherwise(engine: str, attempt: Path, tmp_path: Path) -> None:
    found = outcomes(
        contained(need_image("debian:trixie-slim"), every_attempt(attempt), tmp_path, attempt.parent, capable=True)
    )
    assert calls_of(found) == as_expected(found)


def contained(
    image: str, command: list[str], folder: Path, *shown: Path, capable: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run it in a container under our profile; `capable`: with all capabilities that matter, and as root."""
    profile = folder / "profile.json"
    profile.write_text(docker_profile())
    words = ["docker", "run", "--rm", "--network", "none", "--security-opt", f"seccomp={profile}"]
    words += [word for path in shown for word in ("--volume", f"{path}:{path}:ro")]
    if capable:
        words += [f"--cap-add={name}" for name in ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN")]
    else:
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "1234567:1234567"]
    return subprocess.run(
        [*words, image, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def everyday(language: str, programs: Programs) -> list[str]:
    if language == "java":
        if "everyday" not in programs.built:
            compiler = [programs.tool("javac"), "--release", "17", "-d", str(programs.folder)]
            programs.built["everyday"] = [*compiler, str(EVERYDAY / "Everyday.java")]
            subprocess.run(programs.built["everyday"], check=True, timeout=LIMIT_S)
        return ["java", "-cp", str(programs.folder), "Everyday"]
    return {"python": ["python3", f"{EVERYDAY}/everyday.py"], "node": ["node", f"{EVERYDAY}/everyday.mjs"]}[language]


@pytest.mark.parametrize("language", ["python", "node", "java"])
def test_programs_of_every_day_run_unharmed(
    language: str, bubblewrap: str, filter_file: Path, programs: Programs
) -> None:
    command = everyday(language, programs)
    command[0] = programs.tool(command[0])
    done = sandboxed(bubblewrap, command, filter_file, EVERYDAY, programs.folder)
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("language", "image"),
    [("python", "python:3.13-slim-trixie"), ("node", "node:20-trixie-slim"), ("java", "eclipse-temurin:21-jre")],
)
def test_programs_of_every_day_run_unharmed_in_their_images(
    language: str, image: str, engine: str, programs: Programs, tmp_path: Path
) -> None:
    programs.folder.chmod(0o755)
    command = everyday(language, programs)
    done = contained(need_image(image), command, tmp_path, EVERYDAY, programs.folder)
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


TOOLS = {
    "jq": (["jq", "-n", "1+1"], "2\n"),
    "sqlite3": (["sqlite3", ":memory:", "select 1+1"], "2\n"),
    "perl": (["perl", "-e", "print `echo 2`; fork; wait"], "2\n"),
    "awk": (["awk", 'BEGIN { "echo 2" | getline x; print x }'], "2\n"),
    "tar": (["sh", "-c", "tar -C / -cf - etc/passwd | tar -tf -"], "etc/passwd\n"),
    "cp": (
        ["sh", "-c", "cp -a --reflink=auto /etc/passwd /tmp/p && mkfifo /tmp/f && sort -c /dev/null && echo 2"],
        "2\n",
    ),
    "go": (["docker", "--version"], "Docker version"),  # a program in Go that is there wherever an engine is
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_run_unharmed(tool: str, bubblewrap: str, filter_file: Path, programs: Programs) -> None:
    command, expected = TOOLS[tool]
    programs.tool(command[0])
    done = sandboxed(bubblewrap, command, filter_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert done.stderr == ""
