"""The Dockerfile that is generated for a processor's folder, and what can be told from one that was written. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

from msgspec import Struct

GENERATOR = "1"
"""Counts into every image's name: a generator that writes something else makes other images."""

FOLDER = "/processor"
CONTEXT = "processor/"
"""Where the folder stands in the context that is sent."""

USER = "65532:65532"


class Parts(Struct, frozen=True):
    """What a generated Dockerfile is made of.

    `install` is the command that fetches the program's libraries (None: it needs none), which wants the files `early`
    to be there before it (empty: the whole folder). `command` is the program as an image can know it, without params.
    """

    base: str
    packages: tuple[str, ...] = ()
    install: str | None = None
    early: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def generate(parts: Parts) -> str:
    """The Dockerfile's text."""
    lines = [f"FROM {parts.base}", "USER 0:0", f"WORKDIR {FOLDER}"]
    if parts.packages:
        names = " ".join(map(shlex.quote, parts.packages))
        lines.append(
            f"RUN apt-get update && apt-get install -y --no-install-recommends {names} "
            "&& rm -rf /var/lib/apt/lists/* /var/cache/apt/*"
        )
    whole = f"COPY {CONTEXT} {FOLDER}/"
    if parts.install is None:
        lines.append(whole)
    elif parts.early:
        sources = " ".join(CONTEXT + name for name in parts.early)
        lines += [f"COPY {sources} {FOLDER}/", f"RUN {parts.install}", whole]
    else:
        lines += [whole, f"RUN {parts.install}"]
    lines.append(f"USER {USER}")
    # An entrypoint of the base (the official node image has one) is not this processor's.
    lines.append("ENTRYPOINT []")
    if parts.command:
        lines.append(f"CMD {json.dumps(list(parts.command))}")
    return "\n".join(lines) + "\n"


def bases_of(dockerfile: str, args: Mapping[str, str]) -> tuple[str, ...]:
    """The images that a Dockerfile starts from, each once: not its own stages, nor what only the engine can tell."""
    known = dict[str, str]()
    stages = {"scratch"}
    found: dict[str, None] = {}
    for line in _instructions(dockerfile):
        word, _, rest = line.partition(" ")
        if word.upper() == "ARG" and not found:
            name, _, default = rest.strip().partition("=")
            known[name] = args.get(name, default.strip("\"'"))
        elif word.upper() == "FROM":
            words = [each for each in rest.split() if not each.startswith("--")]
            base = _with_args(words[0], known) if words else ""
            if base and "$" not in base and base.lower() not in stages:
                found[base] = None
            if len(words) == 3:
                stages.add(words[2].lower())
    return tuple(found)


def _instructions(dockerfile: str) -> list[str]:
    """Its lines: without comments, continued ones as one."""
    kept = [line.strip() for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\\\n", " ", "\n".join(kept)).splitlines()


def _with_args(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        default = match["default"]
        return known.get(match["braced"] or match["bare"]) or (match[0] if default is None else default)

    return re.sub(r"\$(?:\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\}|(?P<bare>\w+))", value, text)
