"""The connection to a server, for ever: what does not work now is tried again, and why it does not is known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from runner.channel import tls
from runner.errors import RunnerError
from runner.spec.model import Network

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
ANSWER_S = 5.0
_CANCEL_AGAIN_S = 1.0
_REFUSED = ("authorization", "permissions", "nkey", "user authentication")
_LOOK_AFTER_S = 0.5
_FULL = 10077, 10047, 10122
"""Codes for a stream that can take no more: its bytes, the server's resources, its messages."""


class FullError(Exception):
    """The stream has no room for what is to be sent."""


class Server:
    """One connection to one of the channel's servers. `trouble`: why there is none, as a sentence; None: there is."""

    def __init__(self, network: Network) -> None:
        try:
            import nats
        except ImportError as error:
            raise RunnerError(
                "channels of kind nats need the package nats-py", remedy="pip install 'connector-runner[nats]'"
            ) from error
        self._nats = nats
        self._network = network
        self._servers = list(network.servers)
        self.shown = ", ".join(_without_secrets(each) for each in self._servers)
        self.trouble: str | None = f"{self.shown} is not connected yet"
        self.on_trouble: Callable[[], None] = lambda: None
        self.client: Client | None = None
        self.tries = 0
        """What came to nothing since something worked."""
        self._refused = asyncio.Event()
        self._away = asyncio.Event()
        self._said = ""

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[JetStreamContext]:
        """A connection, once there is one. Raises RunnerError for what no other try mends."""
        client = await self.until_done(self._connect)
        self.client = client
        watching = asyncio.create_task(self._watch(client))
        try:
            yield client.jetstream(timeout=ANSWER_S)
        finally:
            try:
                await end(watching)
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(2):
                        await client.flush()  # what was acknowledged last is still on its way
            finally:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(1):
                        await client.close()

    async def until_done(self, act: Callable[[], Awaitable[T]], longest_wait_s: float = LONGEST_WAIT_S) -> T:
        """The result of `act`, which is tried again, more and more seldom, as long as the server does not do it."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = await act()
            except (
                OSError,
                TimeoutError,
                ValueError,
                self._nats.errors.Error,
                FullError,
            ) as error:  # a greeting that is cut short
                self._judge(error)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait_s = min(2 * wait_s, longest_wait_s)
            else:
                self._tell(None)
                return result

    def failed(self, error: BaseException) -> None:
        """Something did not work and is tried again by who asked for it."""
        self._judge(error)

    def works(self) -> None:
        """It works again."""
        self._tell(None)

    def _judge(self, error: BaseException) -> None:
        """Take note of an error; raises RunnerError for one that stays."""
        from nats.js.errors import NoStreamResponseError, ServiceUnavailableError

        text = (str(error) or self._said or type(error).__name__).removeprefix("nats: ").strip("'\"").lower()
        if any(word in text for word in _REFUSED):
            raise self._not_let_in(text)
        full = isinstance(error, FullError) or getattr(error, "err_code", None) in _FULL
        if full or "maximum bytes exceeded" in text:
            text = "its stream is full"
        elif isinstance(error, ServiceUnavailableError | NoStreamResponseError):
            text = "nobody there keeps messages (is JetStream switched on, and the stream there?)"
        self._tell(f"{self.shown}: {text}")

    def _not_let_in(self, text: str) -> RunnerError:
        return RunnerError(f"{self.shown} does not let us in: {text}", remedy="give the channel another token")

    def _tell(self, trouble: str | None) -> None:
        self.tries = 0 if trouble is None else self.tries + 1
        if trouble is None and self.client is not None and not self.client.is_connected:
            return  # what was done was done before
        if trouble != self.trouble:
            self.trouble = trouble
            self.on_trouble()

    async def _connect(self) -> Client:
        logging.getLogger("nats").setLevel(logging.CRITICAL)  # what goes wrong is told as `trouble`
        context = None if self._network.tls is None else tls.connecting(self._network.tls)
        more: dict[str, Any] = (
            {} if context is None else {"tls": context, "tls_hostname": self._network.tls and self._network.tls.name}
        )
        if self._network.token is not None:
            more["token"] = self._network.token
        self._said = ""
        connecting = asyncio.ensure_future(
            self._nats.connect(
                servers=self._servers,
                name="connector",
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,
                connect_timeout=2,
                allow_reconnect=True,
                error_cb=self._heard,
                disconnected_cb=self._lost,
                reconnected_cb=self._back,
                ping_interval=5,
                max_outstanding_pings=2,
                **more,
            )
        )
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait((connecting, refused), return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                return connecting.result()
            raise self._not_let_in(self._said)
        finally:
            refused.cancel()
            if not connecting.done():
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)

    async def _heard(self, error: Exception) -> None:
        self._said = (str(error) or type(error).__name__).removeprefix("nats: ").strip("'").lower()
        if self.client is None and any(word in self._said for word in _REFUSED):
            self._refused.set()
            return
        if not self.client or not self.client.is_connected:
            self._tell(f"{self.shown}: {'connection refused' if 'errno 111' in self._said else self._said}")

    async def _watch(self, client: Client) -> None:
        """Have the client go on where it has given up for good: its task dies of a greeting that is cut short."""
        while True:
            await self._away.wait()
            await asyncio.sleep(_LOOK_AFTER_S)
            task = client._reconnection_task  # noqa: SLF001 - the library has no other way
            died = task is not None and task.done() and not task.cancelled() and task.exception() is not None
            if died and not client.is_closed:
                client._reconnection_task = asyncio.create_task(client._attempt_reconnect())  # noqa: SLF001

    async def _lost(self) -> None:
        self._away.set()
        self._tell(f"{self.shown}: the connection was lost")

    async def _back(self) -> None:
        self._away.clear()
        self._tell(None)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel it, until it has ended: before Python 3.12 the client can swallow a cancellation (`asyncio.wait_for`)."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
    await asyncio.gather(task, return_exceptions=True)


def _without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
