"""What an engine's refusals mean. The texts are those of real engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import LaunchError, MachineError
from runner.plan import refusals
from runner.spec.model import Home, Mount, Processor

SPEC = Processor(
    name="p",
    command=(),
    directory=None,
    home=Home.CONTAINER,
    image="image:1",
    mounts=(Mount(Path("/here/file"), "/work"),),
)
OCI = "OCI runtime create failed: container_linux.go:380: starting container process caused: "


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (
            'invalid mount config for type "bind": bind source path does not exist: /here/folder',
            "the mount of /here/folder is refused",
            "removed",
        ),
        ("network nowhere not found", "the engine has no network nowhere", "docker network create nowhere"),
        ("Minimum memory limit allowed is 6MB", "limit of memory is too small", "resources.memory"),
        (
            f'{OCI}container init caused: chdir to cwd ("/root") set in config.json failed: permission denied: unknown',
            "may not enter /root",
            "directory = ",
        ),
        (
            "unable to find user x: no matching entries in passwd file",
            "the image has no user x",
            "correct the image's USER",
        ),
        (
            f'{OCI}error mounting "/here/file" to rootfs at "/work": not a directory: unknown: Are you trying to mount',
            "the mount at /work is refused",
            "folders go on folders",
        ),
    ],
)
def test_a_fault_of_the_file_is_final_and_says_what_to_do(words: str, said: str, remedy: str) -> None:
    error = refusals.of_start(400, words, SPEC)
    assert isinstance(error, LaunchError)
    assert said in error.what
    assert remedy in str(error.remedy)


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (404, "No such image: sha256:1", "image image:1 was removed meanwhile"),
        (500, f'{OCI}exec: "/.connector/shim": permission denied: unknown', "the shim cannot be executed"),
        (500, "no space left on device", "the engine refuses: no space left on device"),
    ],
)
def test_what_may_pass_is_the_machines(status: int, words: str, said: str) -> None:
    error = refusals.of_start(status, words, SPEC)
    assert isinstance(error, MachineError)
    assert said in error.what


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Get https://registry/v2/: dial tcp 127.0.0.1:1: connect: connection refused", "cannot be reached"),
        (
            "Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host",
            "cannot be reached",
        ),
        ("Get https://r/v2/: x509: certificate signed by unknown authority", "cannot be reached"),
        ("manifest for debian:nope not found: manifest unknown", "nor in its registry"),
        (
            "pull access denied for nope, repository does not exist or may require 'docker login'",
            "does not give it to you",
        ),
        ("toomanyrequests: you have reached your limit", "cannot be fetched"),
    ],
)
def test_why_an_image_cannot_be_fetched(words: str, said: str) -> None:
    error = refusals.of_pull("image:1", ["a", "b"], words)
    assert isinstance(error, MachineError)
    assert said in error.what
    assert "image image:1" in error.what
    assert words in error.what
    assert error.where == "processors a, b"


def test_a_network_that_cannot_be_made() -> None:
    words = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    assert "docker network prune" in str(refusals.of_network(words, "processor p").remedy)
    assert refusals.of_network("permission denied", "processor p").remedy is None
    assert "without it" in str(refusals.no_network("bridge", "processor p").remedy)
