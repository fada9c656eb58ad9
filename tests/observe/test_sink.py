import fcntl
import io
import os
import pty
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TextIO

from runner.observe.sink import Sink
from tests.observe.samples import Drain


def pipe(capacity_bytes: int = 1 << 16) -> tuple[int, TextIO]:
    receiving, sending = os.pipe()
    fcntl.fcntl(sending, fcntl.F_SETPIPE_SZ, capacity_bytes)
    return receiving, os.fdopen(sending, "w", encoding="utf-8")


def test_lines_arrive_in_order() -> None:
    receiving, stream = pipe()
    drain = Drain(receiving)
    sink = Sink(stream)
    stream.close()
    expected = "".join(f"line {number} … ü\n" for number in range(20_000))
    for line in expected.splitlines(keepends=True):
        sink.write(line)
        drain.until(b"line 0")
    sink.close(10)
    assert drain.rest().decode() == expected
    assert sink.lost_lines == 0


def test_a_stalled_reader_costs_no_time_and_is_told_what_it_missed() -> None:
    receiving, stream = pipe(4096)
    sink = Sink(stream, capacity_bytes=64 << 10)
    stream.close()
    sink.write("first\n")
    slowest_s = 0.0
    for number in range(10_000):
        began_s = time.monotonic()
        sink.write(f"{number:099}\n")
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    sink.write("important\n", important=True)
    assert slowest_s < 5
    assert 9_000 < sink.lost_lines < 10_000
    lost = sink.lost_lines
    drain = Drain(receiving)
    while not sink.idle:
        time.sleep(0.001)
    sink.write("last\n")
    sink.close(10)
    lines = drain.rest().decode().splitlines()
    assert lines[0] == "first"
    assert lines[-1] == "last"
    assert lines.count("important") == 1
    assert [int(line) for line in lines if line.isdigit()] == list(range(10_000 - lost))
    notices = [line.split()[1] for line in lines if line.startswith("…")]
    assert sum(int(count.replace(",", "")) for count in notices) == lost == sink.lost_lines
    assert len(notices) <= 2, "what was left out in a row is told in one line"


def test_closing_a_stalled_sink_takes_no_longer_than_asked() -> None:
    receiving, stream = pipe(4096)
    sink = Sink(stream)
    stream.close()
    for _ in range(1000):
        sink.write("x" * 99 + "\n")
    began_s = time.monotonic()
    sink.close(0.2)
    assert 0.1 < time.monotonic() - began_s < 20
    sink.close(0.2)
    os.close(receiving)


def test_a_reader_that_has_gone_is_survived() -> None:
    receiving, stream = pipe()
    os.close(receiving)
    sink = Sink(stream)
    stream.close()
    for _ in range(100):
        sink.write("nobody reads\n")
    sink.close(5)
    assert sink.lost_lines == 100


def test_a_full_disk_is_survived() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        sink = Sink(stream)
        for _ in range(100):
            sink.write("no room\n")
        sink.close(5)
    assert sink.lost_lines == 100


def test_a_disk_with_room_again_is_told_what_is_missing(tmp_path: Path) -> None:
    """In a child, whose files may not grow beyond 1,000 bytes until it lifts the limit."""
    log = tmp_path / "log"
    program = """
        import resource, sys, time
        from runner.observe.sink import Sink

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        sink = Sink(open(sys.argv[1], "a"))
        for number in range(10):
            sink.write(f"{number:0299}\\n")
            while not sink.idle:
                time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sink.write("room again\\n")
        sink.close(10)
        print(sink.lost_lines)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(log)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "7\n"
    lines = log.read_text().splitlines()
    assert [int(line) for line in lines[:3]] == [0, 1, 2]
    assert lines[3] == "0" * 100  # what still fitted of the fourth
    assert lines[4:] == ["… 7 lines left out here: this stream did not take them", "room again"]


def test_a_line_larger_than_the_queue_is_told() -> None:
    stream = io.StringIO()
    sink = Sink(stream, capacity_bytes=100)
    sink.write("x" * 1000 + "\n")
    while not sink.idle:
        time.sleep(0.001)
    sink.write("after\n")
    sink.close(5)
    assert stream.getvalue() == "… 1 line left out here: this stream did not take them\nafter\n"


def test_streams_in_memory_closed_and_missing() -> None:
    memory = io.StringIO()
    sink = Sink(memory)
    sink.write("text \udc80\n")
    sink.close(5)
    assert memory.getvalue() == "text \\udc80\n"
    assert (sink.is_terminal, sink.size().columns) == (False, 80)
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        sink = Sink(stream)
        sink.write("lost\n")
        sink.close(5)
        sink.write("late\n")
        assert sink.lost_lines == 2


def test_the_encoding_of_the_stream_is_kept() -> None:
    receiving, sending = os.pipe()
    with os.fdopen(sending, "w", encoding="ascii") as stream:
        sink = Sink(stream)
    sink.write("Grüße\n")
    sink.close(5)
    assert Drain(receiving).rest() == b"Gr\\xfc\\xdfe\n"


def test_a_non_blocking_descriptor_loses_nothing() -> None:
    receiving, stream = pipe(4096)
    os.set_blocking(stream.fileno(), False)
    sink = Sink(stream)
    stream.close()
    for number in range(1000):
        sink.write(f"{number:099}\n")
    drain = Drain(receiving)
    sink.close(10)
    assert len(drain.rest().splitlines()) == 1000
    assert sink.lost_lines == 0


def test_a_terminal_is_known_and_stays_blocking() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        sink = Sink(stream)
        assert sink.is_terminal
        assert sink.size() == os.terminal_size((80, 24))  # a new pseudo terminal says 0 by 0
        sink.write("hello\n")
        sink.close(5)
        assert os.get_blocking(stream.fileno())
    assert b"hello" in Drain(leader).rest()


def test_nothing_is_left_open() -> None:
    def descriptors() -> set[str]:
        return {path.name for path in Path("/proc/self/fd").iterdir()}

    before = descriptors()
    with Path("/dev/null").open("w", encoding="utf-8") as stream:
        for written in (0, 1):
            sink = Sink(stream)
            for _ in range(written):
                sink.write("x\n")
            sink.close(5)
    assert descriptors() <= before


def test_a_program_ends_although_its_reader_stalls() -> None:
    program = """
        import sys
        from runner.observe.sink import Sink

        sink = Sink(sys.stderr)
        for _ in range(100_000):
            sink.write("x" * 99 + "\\n")
        sink.close(0.1)
    """
    receiving, sending = os.pipe()
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stderr=sending) as child:
        os.close(sending)
        assert child.wait(20) == 0
    os.close(receiving)
