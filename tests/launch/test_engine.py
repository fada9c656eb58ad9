"""The engine: its errors in words, a call that is cancelled, an engine that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import EXIT_MACHINE, MachineError
from runner.events import Warned
from runner.launch import container as container_home
from runner.launch.engine import Engine, EngineAwayError, EngineRefusedError, Throttle
from runner.launch.machine.engine import engine_address
from tests.engine import docker
from tests.launch.containers import launched, program, run, spec_of, untrusted
from tests.launch.images import own_tag, small
from tests.launch.private_engine import PrivateEngine, lasting_engine, own_engine

__all__ = ["lasting_engine", "own_engine"]

IMAGE = own_tag("own")


def connects() -> None:
    """Speak to the engine, or say why not."""

    async def test() -> None:
        (await Engine.connect()).close()

    run(test)


def why_not() -> MachineError:
    with pytest.raises(MachineError) as caught:
        connects()
    assert caught.value.exit_code == EXIT_MACHINE
    assert caught.value.remedy
    return caught.value


# -- no engine


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:2375", "ssh://somebody@elsewhere", "http://127.0.0.1:2375"])
def test_a_remote_engine_is_refused_with_what_works(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    error = why_not()
    assert address in error.what
    assert "unix:///var/run/docker.sock" in str(error.remedy)


def test_no_engine_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    error = why_not()
    assert f"{tmp_path}/docker.sock" in error.what
    assert isinstance(error, EngineAwayError)


def test_the_engine_is_not_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(f"{tmp_path}/docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert "not running" in why_not().what


def test_what_listens_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/docker.sock")
        other.listen()

        def hang_up() -> None:
            connection, _ = other.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        error = why_not()
        thread.join()
    assert f"{tmp_path}/docker.sock" in error.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_no_permission_on_the_socket(tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or not os.access(__file__, os.R_OK):
        pytest.skip("there is no python3 for all users")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(f"{tmp_path}/docker.sock")
        engine.listen()
        Path(f"{tmp_path}/docker.sock").chmod(0o600)
        for folder in (tmp_path, *tmp_path.parents):
            if not folder.stat().st_mode & 0o001 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o001)
        code = (
            "import asyncio, os\n"
            "from runner.launch.engine import Engine\n"
            "import docker\n"  # what is imported later is read as somebody else
            "os.setresuid(65534, 65534, 65534)\n"
            "try: asyncio.run(Engine.connect())\n"
            "except Exception as error: print(type(error).__name__, error)\n"
        )
        environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=60
        )
    assert "this user may not speak to the engine" in done.stdout
    assert "docker" in done.stdout


def test_a_rootless_engine_of_this_user_is_found(tmp_path: Path) -> None:
    if Path("/var/run/docker.sock").exists():
        address, _ = engine_address({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
        assert address == "unix:///var/run/docker.sock"
        return
    (tmp_path / "docker.sock").touch()
    address, _ = engine_address({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
    assert address == f"unix://{tmp_path}/docker.sock"


# -- calls


@pytest.mark.engine
def test_a_refusal_carries_the_engines_words_and_what_is_not_there_is_none(engine: str) -> None:
    async def test() -> None:
        speaks = await Engine.connect()
        try:
            assert await speaks.image("connector-test/nowhere:1") is None
            assert await speaks.state("nowhere") is None
            assert not await speaks.has_network("nowhere")
            await speaks.remove("nowhere")
            await speaks.remove_network("nowhere")
            with pytest.raises(EngineRefusedError, match="No such image") as caught:
                await speaks.create("connector-test-x", {"Image": "connector-test/nowhere:1"})
            assert caught.value.status == 404
        finally:
            speaks.close()

    del engine
    run(test)


@pytest.mark.engine
def test_a_call_that_was_begun_is_over_when_its_cancellation_is(engine: str) -> None:
    del engine
    image = small().load(own_tag("call"))
    name = f"connector-test-{os.urandom(4).hex()}"

    async def test() -> None:
        speaks = await Engine.connect()
        try:
            making = asyncio.create_task(speaks.create(name, {"Image": image, "Cmd": ["ls"]}))
            await asyncio.sleep(0)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            assert await speaks.state(name) is not None
        finally:
            await speaks.remove(name)
            speaks.close()

    try:
        run(test)
    finally:
        docker("rmi", image)


def test_at_most_four_a_second_are_told() -> None:
    now_s = 0.0
    throttle = Throttle(lambda: now_s)
    told = 0
    for step in range(1000):
        now_s = step / 100
        told += throttle.lets_through()
    assert told == 40


# -- an engine that goes away


@pytest.fixture
def speaks_to_own(own_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    small().load(IMAGE, own_engine.host)
    monkeypatch.setenv("DOCKER_HOST", own_engine.host)
    yield own_engine


@pytest.fixture
def speaks_to_lasting(lasting_engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    small().load(IMAGE, lasting_engine.host)
    monkeypatch.setenv("DOCKER_HOST", lasting_engine.host)
    yield lasting_engine


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_with_live_restore_nothing_happens_to_a_program(speaks_to_lasting: PrivateEngine, number: int) -> None:
    async def test() -> None:
        spec = spec_of(IMAGE)
        async with launched(spec) as made, program(made, spec) as it:
            await it.start("sh", "-c", "echo up; exec cat")
            assert await it.line() == "up"
            end = speaks_to_lasting.kill if number == signal.SIGKILL else speaks_to_lasting.stop
            await asyncio.to_thread(end)
            os.write(it.stdin, b"while it is away\n")
            assert await it.line() == "while it is away"
            await it.handle.kill_tree()
            assert (await it.handle.exited()).signal == signal.SIGKILL
            await it.start("sh", "-c", "echo up; exec cat")  # in place, and nobody needs the engine for it
            assert await it.line() == "up"
            await asyncio.to_thread(speaks_to_lasting.start)
            os.write(it.stdin, b"when it is back\n")
            assert await it.line() == "when it is back"
            assert not made.events
        assert not docker("ps", "-aq", host=speaks_to_lasting.host)

    run(test)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_without_it_another_container_follows_when_the_engine_is_back(
    speaks_to_own: PrivateEngine, number: int
) -> None:
    async def test() -> None:
        trusted, other = spec_of(IMAGE, name="p"), untrusted(IMAGE, name="q")
        async with launched(trusted, other) as made, program(made, trusted) as it, program(made, other) as also:
            for each in (it, also):
                await each.start("sh", "-c", "echo up; exec cat")
                assert await each.line() == "up"
            if number == signal.SIGKILL:
                await asyncio.to_thread(speaks_to_own.kill)
                os.write(it.stdin, b"while it is away\n")
                assert await it.line() == "while it is away"
                await asyncio.to_thread(speaks_to_own.start)  # which ends what ran without it
            else:
                await asyncio.to_thread(speaks_to_own.stop)
            for each in (it, also):
                exited = await each.handle.exited()
                assert (exited.code, exited.signal) == (None, None)
                assert exited.note == "its container was stopped, by the engine or by somebody"
                await each.handle.kill_tree()
            starting = asyncio.gather(*(each.start("sh", "-c", "echo up; exec cat") for each in (it, also)))
            if number == signal.SIGTERM:
                while not made.events:  # noqa: ASYNC110 - there is no event of the loop for it
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(speaks_to_own.start)
                warned = [event.message for event in made.events if isinstance(event, Warned)]
                assert len(warned) == 1
                assert warned[0].startswith("the engine is away; waiting up to 60s")
            await starting
            for each in (it, also):
                assert await each.line() == "up"
        assert not docker("ps", "-aq", host=speaks_to_own.host)

    run(test)


@pytest.mark.engine
@pytest.mark.slow
def test_an_engine_that_stays_away_is_waited_for_no_longer_than_said(
    speaks_to_own: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_home, "ENGINE_WAIT_S", 0.6)

    async def test() -> None:
        spec = untrusted(IMAGE)
        async with launched(spec) as made, program(made, spec) as it:
            await asyncio.to_thread(speaks_to_own.stop)
            with pytest.raises(EngineAwayError, match="engine"):
                await it.start("ls")
            starting = asyncio.create_task(it.start("ls"))
            await asyncio.wait({starting}, timeout=0.1)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await asyncio.to_thread(speaks_to_own.start)
            await it.start("sh", "-c", "echo up; exec cat")
            assert await it.line() == "up"
            await asyncio.to_thread(speaks_to_own.stop)
        last = made.events[-1]
        assert isinstance(last, Warned)
        assert last.message.startswith("left behind until the next run")
        await asyncio.to_thread(speaks_to_own.start)
        assert docker("ps", "-aq", host=speaks_to_own.host)

    run(test)
