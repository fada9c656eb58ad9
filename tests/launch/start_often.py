"""Starts a trusted sandbox 40 times, each anew."""

import asyncio
import os
from pathlib import Path

from runner.launch.base import LaunchContext, LaunchRequest
from runner.launch.sandbox import SandboxLauncher
from runner.spec.model import Home, Processor

SPEC = Processor(name="p", command=("true",), directory=Path("/"), home=Home.SANDBOX)


async def main() -> None:
    launcher = SandboxLauncher(LaunchContext("often", "often", exclusive=True, notify=lambda _: None))
    null = os.open(os.devnull, os.O_RDWR)
    started = 0
    for _ in range(40):
        handle = await launcher.open(SPEC, 1)
        await handle.start(LaunchRequest(("true",), "/", {}, dict.fromkeys(range(3), null)))
        assert (await handle.exited()).ok
        await handle.close()
        started += 1
    await launcher.close()
    print(started, "started")


asyncio.run(main())
