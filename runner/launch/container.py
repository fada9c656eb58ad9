"""The home `container`: an image, started by the engine with the shim as its init; the data never meets the engine.

The shim is mounted read-only and finds the runner by a socket in a private folder, which is mounted as well. A trusted
program is started again in its container, an untrusted one in a new one each time; where the container itself has
ended (by the engine, by somebody, out of memory), the next start makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.errors import BugError, LaunchError, MachineError
from runner.events import Exited, Progress, Warned
from runner.launch import sockets
from runner.launch.base import FILES_INSIDE, FROM_INSIDE, Handle, LaunchContext, Launcher, LaunchRequest, ShimLostError
from runner.launch.box import Box, open_box
from runner.launch.endpoints import EndpointFolder
from runner.launch.engine import Engine, EngineAwayError, EngineRefusedError, Throttle
from runner.launch.machine import gather
from runner.launch.owner import started, this_owner
from runner.launch.peer import seen_from_here
from runner.launch.pipes import open_to
from runner.launch.shim.locate import shim_path
from runner.launch.shim_client import Job
from runner.plan import containers, images, refusals
from runner.plan.containers import Ground, User
from runner.plan.images import Image, Pull, PullProgress
from runner.plan.owners import leftovers
from runner.plan.tiers import requirement, unenforced
from runner.spec.model import Home, Processor
from runner.units import format_count

MOST_STARTS = 4
ENGINE_WAIT_S = 60.0
_ASK_EVERY_S = 0.25
_LONGEST_KILL_S = 10.0


class ContainerHandle(Handle):
    """See the module. At most one container at a time; one that is done with is removed while the next one starts."""

    def __init__(self, launcher: ContainerLauncher, spec: Processor, replica: int) -> None:
        self.checks_inside = FILES_INSIDE if spec.network == "host" else FROM_INSIDE
        self._launcher = launcher
        self._spec = spec
        self._replica = replica
        self._box: Box | None = None
        self._endpoints: EndpointFolder | None = None
        self._job: Job | None = None
        self._ending: asyncio.Task[Exited] | None = None
        self._opening: asyncio.Task[Box] | None = None
        self._removals: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, request: LaunchRequest) -> int:
        """See `Handle`."""
        launcher, spec = self._launcher, self._spec
        if self._closed:
            raise BugError("a handle that was closed was started")
        command = images.program(spec, launcher.image_of(spec), request.command)
        if self._box is not None and (spec.untrusted or not self._box.usable):
            self._discard()
        if self._box is None:
            self._box = await self._new_box()
        box = self._box
        user = launcher.user_here(spec, self._replica)
        open_to(request.ports.values(), user)
        env = {**request.env, **self._listen(box, request, user)}
        self._job = Job(command, request.directory or "", env, request.ports, inherit_env=True)
        box.begin()
        try:
            inside = await box.connection.start(self._job)
        except LaunchError as error:
            if isinstance(error, ShimLostError):
                raise
            what = f'"{command[0]}" of image {spec.image} {error.what}'
            raise LaunchError(what, where=error.where, remedy=error.remedy) from error
        except asyncio.CancelledError:
            self._discard()  # nobody knows what runs in it
            raise
        self._ending = asyncio.create_task(box.end(spec))
        return seen_from_here(box.pid, inside)

    def _listen(self, box: Box, request: LaunchRequest, user: User | None) -> dict[str, str]:
        """The variables of its endpoints, which are in the folder that its container shows it."""
        if not request.endpoints:
            return {}
        if self._endpoints is None:
            owner = None if user is None else (user.uid, user.gid)
            self._endpoints = EndpointFolder(box.folder, containers.SOCKET_FOLDER, owner)
        return self._endpoints.listen(request.endpoints)

    async def exited(self) -> Exited:
        """See `Handle`."""
        if self._ending is None:
            raise BugError("a program that was never started was waited for")
        return await asyncio.shield(self._ending)

    def signal(self, signal_number: int) -> None:
        """See `Handle`."""
        if self._box is not None:
            self._box.connection.signal(signal_number)

    async def probe(self, command: tuple[str, ...]) -> Exited:
        """See `Handle`."""
        if self._box is None or self._job is None:
            raise LaunchError("cannot be probed: it was not started")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            job = replace(self._job, command=command, ports=dict.fromkeys(range(3), null))
            return await self._box.connection.probe(job)
        finally:
            os.close(null)

    async def kill_tree(self) -> None:
        """See `Handle`. Where the shim does not do it (its container is paused), the whole container is ended."""
        box = self._box
        if box is None:
            return
        try:
            async with asyncio.timeout(_LONGEST_KILL_S):
                await box.connection.kill_tree()
        except TimeoutError:
            await box.end_by_force()
        if box.connection.lost:
            await box.gone()

    async def close(self) -> None:
        """See `Handle`."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        self._discard()
        if self._ending is not None:
            await asyncio.wait({self._ending})
        if self._removals:
            await asyncio.wait(self._removals)

    async def _new_box(self) -> Box:
        self._opening = asyncio.create_task(self._launcher.open_box(self._spec, self._replica))
        try:
            return await self._opening
        except asyncio.CancelledError:
            if self._closed and not _cancelled():
                raise ShimLostError("cannot be started: it was closed meanwhile") from None
            raise
        finally:
            self._opening = None

    def _discard(self) -> None:
        """Let go of the container; it is removed in the background, and `close` waits for that."""
        if self._endpoints is not None:
            self._endpoints.clear()
            self._endpoints = None
        if self._box is not None:
            self._box.release()
            removal = asyncio.create_task(self._launcher.remove_box(self._box))
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)
            self._box = None


class ContainerLauncher(Launcher):
    """Speaks to the engine for all handles: images, networks, what dead runners left, at most four starts at once."""

    name = "container"

    def __init__(self, context: LaunchContext) -> None:
        self._context = context
        self._shim = shim_path()
        self._engine: Engine | None = None
        self._folder: sockets.SocketFolder | None = None
        self._images: dict[str, Image] = {}
        self._networks: list[str] = []
        self._left: set[str] = set()
        self._ground: Ground | None = None
        self._starts = asyncio.Semaphore(MOST_STARTS)
        self._away = asyncio.Lock()

    # -- what must be there before the first start

    async def prepare(self, specs: Sequence[Processor]) -> None:
        """See `Launcher`. Raises LaunchError for a mount or image that the file should not have asked for."""
        facts = await asyncio.to_thread(gather, {Home.CONTAINER})
        for spec in specs:
            problem = requirement(spec, facts)
            if problem is not None:
                raise problem
            for sentence in unenforced(spec, facts):
                self._context.notify(Warned(message=sentence, processor=spec.name))
        self._engine = engine = await Engine.connect()
        self._ground = self._make_ground(engine, any(spec.untrusted for spec in specs))
        for spec in specs:
            self._check_mounts(spec, engine)
        await self._sweep(engine)
        self._folder = sockets.SocketFolder.make()
        for spec in specs:
            await self._prepare_network(spec, engine)
        await _all(self._prepare_image(name, *wish) for name, wish in images.pulls(specs).items())

    def _make_ground(self, engine: Engine, walls: bool) -> Ground:
        mode = self._shim.stat().st_mode
        if mode & 0o005 != 0o005:
            raise MachineError(
                f"containers' users may not execute the shim {self._shim}, its mode is {stat.S_IMODE(mode):04o}",
                remedy=f"chmod o+rx {self._shim}",
            )
        profile = ""
        if walls:
            from runner.launch.seccomp import docker_profile

            profile = docker_profile()
        context = self._context
        owner = str(this_owner())
        return Ground(context.run, context.pipeline, owner, str(self._shim.resolve()), engine.facts, profile)

    def _check_mounts(self, spec: Processor, engine: Engine) -> None:
        """Raise LaunchError for a mount that gives away the machine, or that an untrusted instance cannot use."""
        where = f"processor {spec.name}"
        containers.refuse_mounts(spec, engine.sockets)
        for mount in spec.mounts:
            try:
                found = mount.source.stat()
                if "system.posix_acl_access" in os.listxattr(mount.source):
                    continue  # it may say more than the mode
            except OSError as error:
                raise LaunchError(f"the mount {mount.source} is refused: {error.strerror}", where=where) from error
            status = containers.Status(found.st_mode, found.st_uid, found.st_gid)
            users = (containers.own_user(spec, replica + 1, self._place()) for replica in range(spec.replicas))
            for user in filter(None, users):
                problem = containers.out_of_reach(mount, status, user, same_users=not engine.facts.own_users)
                if problem is not None:
                    raise LaunchError(problem.what, where=where, remedy=problem.remedy)

    async def _sweep(self, engine: Engine) -> None:
        """Remove what dead runners left."""
        await asyncio.to_thread(sockets.sweep)
        me = this_owner()
        old = leftovers(await engine.owned_containers(), me, started)
        await _all(self._remove(each) for each in old)  # another runner may be at it as well
        networks = leftovers(await engine.owned_networks(), me, started)
        for each in networks:
            with contextlib.suppress(EngineRefusedError):  # somebody may have put something of his own into it
                await engine.remove_network(each)
        if old:
            text = f"{format_count(len(old), 'container')} of a runner that has died removed"
            self._context.notify(Warned(message=text))

    async def _prepare_network(self, spec: Processor, engine: Engine) -> None:
        name = containers.network_mode(spec, self._place())
        if spec.untrusted and spec.network == "outbound":
            self._networks.append(name)
            try:
                await engine.create_network(containers.network_config(spec, self._place()))
            except EngineRefusedError as error:
                raise refusals.of_network(error.words, f"processor {spec.name}") from error
        elif name not in {"none", "host"} and not await engine.has_network(name):
            raise refusals.no_network(name, f"processor {spec.name}")

    async def _prepare_image(self, name: str, pull: Pull, users: list[str]) -> None:
        engine = self._speak()
        image = None if pull == "always" else await engine.image(name)
        if image is None and pull == "never":
            raise refusals.no_image(name, users)
        if image is None:
            async with self._starts:
                await self._pull(name, users, engine)
            image = await engine.image(name)
        if image is None:
            raise refusals.no_image(name, users)
        misfit = images.misfit(name, image, engine.facts.arch)
        if misfit is not None:
            raise refusals.wrong_image(misfit, users)
        self._images[name] = image

    async def _pull(self, name: str, users: list[str], engine: Engine) -> None:
        progress, throttle, notify = PullProgress(), Throttle(), self._context.notify

        def tell(record: Mapping[str, Any]) -> None:
            progress.add(record)
            if throttle.lets_through():
                notify(Progress(what=f"image {name}", doing=progress.doing, fraction=progress.fraction))

        notify(Progress(what=f"image {name}", doing="downloading"))
        try:
            await engine.pull(name, tell)
        except EngineRefusedError as error:
            raise refusals.of_pull(name, users, error.words) from error
        finally:
            notify(Progress(what=f"image {name}", doing=progress.doing, fraction=progress.fraction, done=True))

    # -- what handles ask for

    async def open(self, spec: Processor, replica: int) -> ContainerHandle:
        """See `Launcher`; the container itself comes with the first start."""
        if spec.image not in self._images:
            await self._prepare_image(spec.image or "", spec.pull, [spec.name])
        return ContainerHandle(self, spec, replica)

    def image_of(self, spec: Processor) -> Image:
        """The image of a processor, as it was found."""
        return self._images[spec.image or ""]

    def user_here(self, spec: Processor, replica: int) -> User | None:
        """The user that an instance has for itself, as this machine knows it; None: that is not known."""
        return None if self._place().engine.own_users else containers.own_user(spec, replica, self._place())

    async def open_box(self, spec: Processor, replica: int) -> Box:
        """A new container with a connected shim; waits for an engine that is away."""
        while True:
            try:
                async with self._starts:
                    return await self._open_once(spec, replica)
            except EngineAwayError as away:
                await self._until_back(away)

    async def _open_once(self, spec: Processor, replica: int) -> Box:
        assert self._folder is not None
        ground = self._place()
        door = self._folder.door()
        name = containers.container_name(spec, replica, ground, secrets.token_hex(4))
        try:
            config = containers.container_config(spec, replica, self.image_of(spec), ground, sockets=str(door.folder))
            return await open_box(self._speak(), name, config, door, self._remove)
        except EngineRefusedError as error:
            raise refusals.of_start(error.status, error.words, spec) from error
        finally:
            door.shut()

    async def remove_box(self, box: Box) -> None:
        """Remove a container, and let go of it here."""
        await self._remove(box.name)
        await box.close()

    async def _remove(self, name: str) -> None:
        """Where that cannot be done now it is tried again later."""
        try:
            await self._speak().remove(name)
        except MachineError:
            self._left.add(name)

    async def _remove_left(self) -> None:
        """Remove the containers that could not be removed before."""
        for name in sorted(self._left):
            with contextlib.suppress(MachineError):
                await self._speak().remove(name)
                self._left.discard(name)

    async def _until_back(self, away: EngineAwayError) -> None:
        """Wait for the engine; raises `away` when it does not come back. Says so once."""
        async with self._away:  # who comes second finds it there, or waits anew
            engine = self._speak()
            if await engine.answers():
                return
            text = f"the engine is away; waiting up to {ENGINE_WAIT_S:.0f}s for it to come back ({away.what})"
            self._context.notify(Warned(message=text))
            try:
                async with asyncio.timeout(ENGINE_WAIT_S):
                    while not await engine.answers():  # noqa: ASYNC110 - it tells nobody when it comes
                        await asyncio.sleep(_ASK_EVERY_S)
            except TimeoutError:
                raise away from None
            await self._remove_left()

    async def close(self) -> None:
        """See `Launcher`."""
        if self._engine is not None:
            await self._remove_left()
            for name in self._networks:
                try:
                    await self._engine.remove_network(name)
                except MachineError:
                    self._left.add(name)
            if self._left:
                text = (
                    f"left behind until the next run, as the engine does not remove it: {', '.join(sorted(self._left))}"
                )
                self._context.notify(Warned(message=text))
            self._engine.close()
            self._engine = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _speak(self) -> Engine:
        if self._engine is None:
            raise BugError("containers were asked for before the launcher was prepared")
        return self._engine

    def _place(self) -> Ground:
        if self._ground is None:
            raise BugError("containers were asked for before the launcher was prepared")
        return self._ground


def _cancelled() -> bool:
    """Whether the task that asks is being cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of them at once; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in coroutines:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
