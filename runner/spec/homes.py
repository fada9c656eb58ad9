"""Which home a processor runs in: what it is decides, what it asks for, and what was asked for all of them."""

from __future__ import annotations

from msgspec import Struct

from runner.spec.model import Home


class Ways(Struct, frozen=True):
    """How a processor can be run: by a command of this machine, as an image (one that can be built counts)."""

    command: bool
    image: bool


class Choice(Struct, frozen=True):
    """A home, and why it is not the one that was asked for (None: it is, or nothing was)."""

    home: Home
    kept: str | None = None


def choose_home(ways: Ways, *, untrusted: bool, network: str | None, wanted: Home | None) -> Choice:
    """The home of a processor. `network` as it was written; `wanted` is that of `connector run --home`.

    Never one with a thinner wall than the processor asks for.
    """
    if wanted is Home.ATTACHED:
        return Choice(Home.ATTACHED)  # its wall is that of its container
    walled = untrusted or network == "none"
    if not ways.command:
        return Choice(Home.CONTAINER, None if wanted in {None, Home.CONTAINER} else "an image runs in a container only")
    if wanted is Home.CONTAINER and ways.image:
        return Choice(Home.CONTAINER)
    own = Home.SANDBOX if walled or wanted is Home.SANDBOX else Home.PROCESS
    if wanted is Home.CONTAINER:
        return Choice(own, "it has no image, and no folder of its own that an image could be built of")
    if wanted is Home.PROCESS and walled:
        return Choice(own, "it is untrusted" if untrusted else 'network = "none" needs a wall')
    return Choice(own)
