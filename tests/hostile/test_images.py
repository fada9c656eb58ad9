"""Images that are hostile themselves: what their configuration asks for is not theirs to ask."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import docker
from tests.hostile.harness import MIB, arena
from tests.hostile.outside import IMAGE
from tests.hostile.seen import Seen, check_undisturbed, seen
from tests.hostile.test_words import harmful

pytestmark = pytest.mark.engine

VOLUMES = ("/var/tmp", "/.connector", "/var/lib")  # the first is one that everybody may write
TITLE = "\x1b]0;pwned\x07\u009b31m\u202egnp.exe\u2066"

GREEDY = f"""
FROM {IMAGE}
VOLUME {json.dumps(VOLUMES)}
USER root
ENV LD_PRELOAD=/nowhere.so CONNECTOR_PROCESSOR=source HOME=/root
HEALTHCHECK --interval=1s CMD ["python3", "--version"]
STOPSIGNAL SIGKILL
LABEL connector.run=another connector.pipeline=another connector.owner=another
ENTRYPOINT ["sh", "-c", "echo the image's own"]
"""

ODD = f"""
FROM {IMAGE}
ENTRYPOINT {json.dumps([TITLE, "x"])}
"""


@pytest.fixture(scope="module")
def images(engine: str) -> Iterator[dict[str, str]]:
    """Both, made without a network, and taken away again."""
    del engine
    made = {}
    try:
        for name, text in (("greedy", GREEDY), ("odd", ODD)):
            tag = f"connector-hostile-{name}:{secrets.token_hex(8)}"
            subprocess.run(
                ["docker", "build", "--quiet", "--network", "none", "--tag", tag, "-"],
                input=text.encode(),
                env=os.environ | {"DOCKER_BUILDKIT": "0"},
                capture_output=True,
                check=True,
                timeout=60,
            )
            made[name] = tag
        yield made
    finally:
        for tag in made.values():
            docker("rmi", "--force", tag)


@pytest.fixture(scope="module")
def demanding(images: dict[str, str]) -> Iterator[Seen]:
    """The one that wants volumes, root and a health check; and the one whose program has an odd name."""
    with arena("container") as place:
        python, *words = place.python("assaults", "fill-folders", 32 * MIB, *VOLUMES, "/tmp")
        limits = {"disk": "4MiB"}
        greedy = place.placed(words, image=images["greedy"], entrypoint=[python], resources=limits)
        odd: dict[str, Any] = {**place.placed([]), "image": images["odd"]}
        del odd["command"]
        with place.start({"greedy": greedy, "odd": odd}) as running:
            place.until(running, lambda: place.pids("fill-folders"), "the program")
            place.go()
            place.until(running, lambda: len(place.lines("greedy")) == 5, "all folders")
            whose = (f"label=connector.pipeline={place.pipeline_name}", "label=connector.processor=greedy")
            box = docker("ps", "--quiet", "--filter", whose[0], "--filter", whose[1])
            health = docker("inspect", "--format", "{{json .State.Health}}", box)
            volumes = set(docker("inspect", "--format", "{{range .Mounts}}{{println .Name}}{{end}}", box).split())
            place.until_neighbour_went_on(running)
            place.stop.touch()
            result = running.finish(20)
            printed = (place.work / "run.stderr").read_bytes() + (place.work / "run.stdout").read_bytes()
            report = (place.work / "report.json").read_bytes()
            left = volumes & set(docker("volume", "ls", "--quiet").split())
            yield seen(place, result, running.pid, volumes=left, health=health, printed=printed, report=report)


def test_its_volumes_are_bounded_and_go_with_it(demanding: Seen) -> None:
    lines = dict(line.split(": ", 1) for line in demanding.place.lines("greedy") if ": " in line)
    for folder in (*VOLUMES, "/tmp"):
        written = int(lines[folder].split()[0])
        assert written <= 4 * MIB, lines
    assert demanding.more["volumes"] == set()


def test_it_is_not_the_user_that_it_wants(demanding: Seen) -> None:
    (who,) = [line for line in demanding.place.lines("greedy") if line.startswith("user")]
    assert int(who.split()[1]) >= 1 << 30, who
    assert "processor greedy" in who


def test_its_health_check_is_not_run(demanding: Seen) -> None:
    assert demanding.more["health"] == "null"


def test_the_name_of_its_program_is_harmless(demanding: Seen) -> None:
    assert demanding.ended("odd")["state"] == "failed"
    assert b"pwned" in demanding.more["printed"]
    assert harmful(demanding.more["printed"]) == []
    assert harmful(demanding.more["report"]) == []


def test_images_disturb_nobody(demanding: Seen) -> None:
    check_undisturbed(demanding)
