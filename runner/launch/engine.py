"""The container engine, through the docker package: control only, in threads of its own, with errors in words.

A call that was begun is waited for, also when the one who asked is cancelled: then what it made is known, and can be
taken away again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import MachineError
from runner.launch.machine.engine import look
from runner.launch.machine.kernel import system
from runner.plan.containers import OWNER_LABEL, EngineFacts
from runner.plan.images import Image
from runner.plan.remedies import for_engine

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

MOST_THREADS = 8
_CALL_S = 60
_END_SEEN_S = 5
_TELL_EVERY_S = 0.25
_HTTP_NOT_FOUND = 404
_HTTP_NOT_MODIFIED = 304


class EngineAwayError(MachineError):
    """The engine does not answer (any more); another try may help."""


class EngineRefusedError(MachineError):
    """The engine says no: `status` is that of HTTP, `words` are its own."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        self.words = words
        super().__init__(f"the engine refuses: {words}")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the engine says of a container; `pid` 0: not running, or not to be seen from here."""

    running: bool
    paused: bool
    out_of_memory: bool
    code: int
    error: str
    pid: int


class Engine:
    """The engine of this machine. Every method raises EngineAwayError when it does not answer."""

    def __init__(self, client: APIClient, facts: EngineFacts, path: str) -> None:
        self.facts = facts
        self._client = client
        self._path = path
        self._threads = _Threads(MOST_THREADS)

    @classmethod
    async def connect(cls) -> Engine:
        """The engine that the docker command would use. Raises MachineError with what to do where there is none."""
        threads = _Threads(1)
        try:
            return cls(*await threads.call(_connect))
        finally:
            threads.close()

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Where an engine of this machine can be reached, as far as there is something; resolved."""
        usual = ("/run/docker.sock", "/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
        found = {Path(each).resolve() for each in (self._path, *usual)}
        return tuple(sorted(each for each in found if each.exists()))

    async def image(self, name: str) -> Image | None:
        """The image; None when it is not there."""
        found = await self._maybe(lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
        return None if found is None else Image.of(found)

    async def pull(self, name: str, tell: Callable[[Mapping[str, Any]], None]) -> None:
        """Fetch an image; `tell` gets the engine's records, on the loop's thread. Ends soon after being cancelled."""
        loop = asyncio.get_running_loop()
        given_up = threading.Event()

        def work() -> None:
            _reach(self._path)
            for record in self._client.pull(name, stream=True, decode=True):
                if given_up.is_set():
                    return  # the engine stops when nobody listens
                if "error" in record:
                    raise EngineRefusedError(200, str(record["error"]))
                loop.call_soon_threadsafe(tell, record)

        threads = _Threads(1)
        try:
            await asyncio.shield(threads.submit(lambda: _in_words(work)))
        finally:
            given_up.set()
            threads.close()

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Make a container; returns its id."""
        body = dict(config)
        made = await self._call(
            lambda client: client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        )
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start its first process; returns when that has been executed."""
        await self._call(lambda client: client.start(container))

    async def state(self, container: str) -> ContainerState | None:
        """How it is; None when it is not there."""
        found = await self._maybe(lambda client: client.inspect_container(container))
        if found is None:
            return None
        state = found["State"]
        return ContainerState(
            running=bool(state["Running"]),
            paused=bool(state["Paused"]),
            out_of_memory=bool(state["OOMKilled"]),
            code=int(state["ExitCode"]),
            error=str(state.get("Error") or ""),
            pid=int(state["Pid"]),
        )

    async def end_state(self, container: str) -> ContainerState | None:
        """How it is once the engine has seen it end, which it is given a moment for; None when it is not there."""

        def wait(client: APIClient) -> None:
            client.wait(container, timeout=_END_SEEN_S, condition="not-running")

        with contextlib.suppress(EngineAwayError):
            await self._maybe(wait)
        return await self.state(container)

    async def kill(self, container: str) -> None:
        """SIGKILL its first process, also when it is paused; nothing happens when it has ended."""

        def work(client: APIClient) -> None:
            from docker.errors import APIError

            with contextlib.suppress(APIError):
                client.unpause(container)
            with contextlib.suppress(APIError):
                client.kill(container)

        await self._call(work)

    async def remove(self, container: str) -> None:
        """Remove a container, running or not, with its own volumes; nothing happens when it is not there."""
        await self._maybe(lambda client: client.remove_container(container, v=True, force=True))

    async def has_network(self, name: str) -> bool:
        """Whether there is a network of that name."""
        return await self._maybe(lambda client: client.inspect_network(name)) is not None

    async def create_network(self, config: Mapping[str, Any]) -> None:
        """Make a network."""
        await self._call(lambda client: client.create_network(**config))

    async def remove_network(self, name: str) -> None:
        """Remove a network; nothing happens when it is not there."""
        await self._maybe(lambda client: client.remove_network(name))

    async def owned_containers(self) -> dict[str, str]:
        """The ids of all containers that a runner made, each with its owner's text."""
        by_label = {"label": OWNER_LABEL}
        found = await self._call(lambda client: client.containers(all=True, filters=by_label))
        return {each["Id"]: each["Labels"][OWNER_LABEL] for each in found}

    async def owned_networks(self) -> dict[str, str]:
        """The same for networks."""
        by_label = {"label": OWNER_LABEL}
        found = await self._call(lambda client: client.networks(filters=by_label))
        return {each["Id"]: each["Labels"][OWNER_LABEL] for each in found}

    async def answers(self) -> bool:
        """Whether it answers now."""
        try:
            await self._call(lambda client: client.ping())
        except MachineError:
            return False
        return True

    def close(self) -> None:
        """Let go of it. Only when no call is under way."""
        self._threads.close()
        self._client.close()

    async def _call(self, work: Callable[[APIClient], T]) -> T:
        def reach_and_work() -> T:
            _reach(self._path)
            return work(self._client)

        return await self._threads.call(lambda: _in_words(reach_and_work))

    async def _maybe(self, work: Callable[[APIClient], T]) -> T | None:
        """None when what is asked for is not there."""
        try:
            return await self._call(work)
        except EngineRefusedError as error:
            if error.status in {_HTTP_NOT_FOUND, _HTTP_NOT_MODIFIED}:
                return None
            raise


class Throttle:
    """Lets through at most four a second, as time goes by `now_s`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._next_s = 0.0

    def lets_through(self) -> bool:
        """Whether it is time for another."""
        now_s = self._now_s()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + _TELL_EVERY_S
        return True


class _Threads:
    """A few threads that do what blocks. Daemons: a call that hangs does not keep the runner from ending."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._started = 0
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. When this is cancelled, `work` is waited for all the same."""
        future = self.submit(work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            future.exception()  # somebody has seen it
            raise cancelled
        return future.result()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have `work` done by the next free thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # one of the two is there
            else:
                future.set_exception(error)

        def job() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it goes to who asked
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failure)

        self._work.put(job)
        if self._started < self._most:
            self._started += 1
            threading.Thread(target=self._serve, name=f"connector-engine-{self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads, each after what it is doing."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            job()
            del job


def _connect() -> tuple[APIClient, EngineFacts, str]:
    here = system()
    found = look(here)
    if found.package is None:
        raise MachineError("the Python package docker is not installed", remedy="pip install docker")
    if found.trouble is not None:
        raise EngineAwayError(found.problem or found.trouble, remedy=for_engine(found, here))
    from docker import APIClient

    def client_and_info() -> tuple[APIClient, dict[str, Any]]:
        client = APIClient(base_url=found.address, version=found.api, timeout=_CALL_S)
        client.trust_env = False  # no proxy leads to a unix socket
        client.headers["Connection"] = "close"  # the package keeps one for every path that was ever asked for
        return client, client.info()

    client, info = _in_words(client_and_info)
    facts = EngineFacts(
        api=tuple(int(part) for part in found.api.split(".")),
        arch=found.arch,
        cpus=int(info.get("NCPU") or 1),
        own_users=found.rootless or found.remapped,
    )
    return client, facts, found.address.removeprefix("unix://")


def _reach(path: str) -> None:
    """Raise OSError when nobody listens there: the docker package would leave an open socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(_CALL_S)
        trial.connect(path)


def _in_words(work: Callable[[], T]) -> T:
    """What `work` returns; the errors of the docker package and below become ours."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        return work()
    except APIError as error:
        status = 0 if error.response is None else error.response.status_code
        raise EngineRefusedError(status, str(error.explanation or error).strip()) from error
    except (RequestException, OSError) as error:
        here = system()
        found = look(here)
        if found.trouble is None:
            raise EngineAwayError("the engine did not answer, or broke off its answer") from error
        raise EngineAwayError(found.problem or found.trouble, remedy=for_engine(found, here)) from error
    except DockerException as error:
        raise MachineError(f"the docker package cannot do it: {error}") from error
