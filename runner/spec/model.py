"""The pipeline as the runner works with it: every default filled in, every unit parsed, every path absolute.

Structs rather than dataclasses: those take a millisecond each to be made, and a check of a file should end at once.
Made by `runner.spec.load` from a file or a mapping; a value of these types is known to be valid. What the user may
write is `runner.spec.document`; what each key means is `docs/pipeline-file.md`.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from re import Pattern
from typing import Literal

import msgspec

from runner.units import Rate

MIB = 1 << 20
DEFAULT_LIMIT = Rate(5, 60.0)


class Contract(StrEnum):
    """How a processor's outputs answer its inputs."""

    STREAM = "stream"
    ONE_TO_ONE = "one-to-one"
    BATCH = "batch"
    ACKNOWLEDGED = "acknowledged"


class Resume(StrEnum):
    """What a source's restart means."""

    NONE = "none"
    SKIP = "skip"
    SELF = "self"
    LIVE = "live"


class OnFull(StrEnum):
    """What a full channel does."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"


class Home(StrEnum):
    """What an instance runs in. The runner makes all of them but the last: that is somebody else's container."""

    PROCESS = "process"
    SANDBOX = "sandbox"
    CONTAINER = "container"
    ATTACHED = "attached"


OWN_HOMES = (Home.PROCESS, Home.SANDBOX, Home.CONTAINER)
"""Those that the runner makes itself."""


class Trust(StrEnum):
    """Whether a processor is walled off."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Mount(msgspec.Struct, frozen=True):
    """A file or folder of this machine that an instance sees at `target` (an absolute path)."""

    source: Path
    target: str
    writable: bool = False


class Build(msgspec.Struct, frozen=True):
    """How the image of a `use` processor is made of its folder.

    `dockerfile` None: a generated one, for `language` (None: guessed from the command), from `base` (None: the
    language's own) with Debian `packages`. `context`, `target` and `args` go with a Dockerfile.
    """

    context: Path
    dockerfile: Path | None = None
    target: str | None = None
    args: dict[str, str] = msgspec.field(default_factory=dict)
    language: Literal["python", "node", "java", "static"] | None = None
    base: str | None = None
    packages: tuple[str, ...] = ()


class Port(msgspec.Struct, frozen=True):
    """One end of a program: "stdin", "stdout", "stderr" or a name; the channels it is joined to; its codec's name."""

    name: str
    channels: tuple[str, ...]
    codec: str


class Backoff(msgspec.Struct, frozen=True):
    """Seconds before a restart: `first_s`, doubled each time up to `most_s`; the actual wait is random below that."""

    first_s: float = 0.1
    most_s: float = 30.0


class RestartPolicy(msgspec.Struct, frozen=True):
    """When a program is started again. More deaths than `limit` fail the processor for good."""

    when: Literal["on-failure", "always", "never"] = "on-failure"
    backoff: Backoff = Backoff()
    limit: Rate = DEFAULT_LIMIT
    reset_after_s: float = 60.0


class StopPolicy(msgspec.Struct, frozen=True):
    """How a program is asked to end: `signal_number`, then KILL of its tree after `grace_s` seconds."""

    grace_s: float = 5.0
    signal_number: int = int(signal.SIGTERM)


class Check(msgspec.Struct, frozen=True):
    """A check of readiness or liveness.

    `kind` says what `value` is: a regular expression for a log line, a path, "HOST:PORT", a URL, or (command) a tuple
    of arguments, the program of which is found as that of the processor's command is.

    Readiness: the program must be ready `timeout_s` seconds after its start, otherwise the start counts as failed; it
    is asked every `every_s` seconds (a line is waited for), one answer may take min(every_s, 5) seconds, and
    `failures` answers of "no" in a row fail the start as well (None, the default: only `timeout_s` bounds it).
    Liveness: asked every `every_s` seconds, one answer may take `timeout_s`, and `failures` (never None) in a row mean
    that it is restarted. Never of kind "line".
    """

    kind: Literal["line", "file", "tcp", "http", "command"]
    value: str | tuple[str, ...]
    every_s: float
    timeout_s: float
    failures: int | None


class Guard(msgspec.Struct, frozen=True):
    """What may be data on stdout: everything ("none"), whole JSON values ("json"), what `pattern` finds ("match")."""

    kind: Literal["none", "json", "match"] = "none"
    pattern: Pattern[bytes] | None = None


class InFlight(msgspec.Struct, frozen=True):
    """At most this much is handed to an instance and not acknowledged; `messages` None: no bound but the bytes."""

    size_bytes: int = MIB
    messages: int | None = None


class BatchPolicy(msgspec.Struct, frozen=True):
    """How many messages, or bytes of them, one run of a program is given (`batch`); a longer message comes alone.

    `wait_s`: how long a batch that is not full waits for more, from its first message on.
    """

    messages: int = 1000
    size_bytes: int = 8 * MIB
    wait_s: float = 1.0


BATCH_FILE = "{batch}"
"""Where it stands in a command, the path of a file with the batch is put in."""


class Poison(msgspec.Struct, frozen=True):
    """When messages are suspected of killing their reader, and how many may be set aside.

    `after` deaths in a row without an answer make what is in flight suspect; more dead letters than `limit` fail the
    processor.
    """

    after: int = 3
    limit: Rate = Rate(100, 60.0)


class Resources(msgspec.Struct, frozen=True):
    """Limits of one instance; None: not limited. `memory_bytes` and `disk_bytes` in bytes, `cpus` in cores.

    Those of an untrusted processor are all set.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    files: int | None = None
    disk_bytes: int | None = None


UNTRUSTED_RESOURCES = Resources(512 * MIB, 0.5, 64, 256, 64 * MIB)
"""What an untrusted processor may use unless more is written."""


class Processor(msgspec.Struct, frozen=True):
    """One processor's spec.

    `command` has params replaced, and at least one word unless the home is a container: there it may be empty (the
    image's own command), and `image` is set unless it is one that `build` makes. In home "attached" neither image nor
    mounts nor resources are known, and `entrypoint` or `command` has a word. `entrypoint` and `directory` None:
    the image's own. `template` is the folder of a `use` processor. `network` is "none", "outbound", "host" or the name
    of an engine's network; a mount's source is there, and `pull` says when an image is fetched.
    `env` is what the file adds; `params` are given to the
    program as CONNECTOR_PARAM_NAME and CONNECTOR_PARAMS; durations are seconds and sizes bytes, and those named in
    `secret_params` are never shown. `secrets` maps a variable's name to its value (never shown). A source with
    `resume` "none" has the restart policy "never".
    `batch` and `max_outputs_bytes` (how much the run of a batch may write) are for contract `batch`.
    `bridge` "zeromq": its ports are sockets, not descriptors, and `end` says what means the end of its input: an empty
    message, or the stop signal (contract `stream` only).
    `runner` None: the only one.
    `order` is "keep" or "any". `log_stdout`: stdout is no port and no acknowledgement, so it is the log.
    """

    name: str
    command: tuple[str, ...]
    directory: Path | None
    home: Home = Home.PROCESS
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    build: Build | None = None
    template: Path | None = None
    trust: Trust = Trust.TRUSTED
    network: str = "host"
    mounts: tuple[Mount, ...] = ()
    runner: str | None = None
    reads: tuple[Port, ...] = ()
    writes: tuple[Port, ...] = ()
    stdout_codec: str = "lines"
    contract: Contract = Contract.STREAM
    resume: Resume = Resume.NONE
    in_flight: InFlight = InFlight()
    batch: BatchPolicy = BatchPolicy()
    max_outputs_bytes: int = 1 << 30
    replicas: int = 1
    order: Literal["keep", "any"] = "any"
    max_message_bytes: int = 16 * MIB
    guard: Guard = Guard()
    bridge: Literal["stdio", "zeromq"] = "stdio"
    end: Literal["empty", "signal"] = "signal"
    restart: RestartPolicy = RestartPolicy()
    stop: StopPolicy = StopPolicy()
    ready: Check | None = None
    live: Check | None = None
    stall_s: float | None = None
    continue_on_error: bool = False
    poison: Poison = Poison()
    resources: Resources = Resources()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    params: dict[str, object] = msgspec.field(default_factory=dict)
    secret_params: frozenset[str] = frozenset()
    secrets: dict[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Processor({self.name!r})"  # its secrets must not come out in somebody's traceback

    @property
    def is_source(self) -> bool:
        """Whether it reads nothing."""
        return not self.reads

    @property
    def told_by_signal(self) -> bool:
        """Whether the stop signal is what tells it that its input has ended."""
        plain = self.bridge == "zeromq" and self.contract is Contract.STREAM
        return plain and self.end == "signal" and not self.is_source

    @property
    def untrusted(self) -> bool:
        """Whether it is walled off."""
        return self.trust is Trust.UNTRUSTED

    @property
    def log_stdout(self) -> bool:
        """Whether its stdout belongs to its log."""
        unanswered = self.contract in {Contract.STREAM, Contract.BATCH}
        return unanswered and all(port.name != "stdout" for port in self.writes)

    @property
    def batch_as_file(self) -> bool:
        """Whether it is given its batch as a file, named in its command; otherwise on stdin."""
        return self.contract is Contract.BATCH and any(BATCH_FILE in word for word in self.command)


class Durability(StrEnum):
    """What the messages of a channel outlive: nothing, the runner's death, a power cut."""

    MEMORY = "memory"
    PROCESS = "process"
    DISK = "disk"


class Rotation(msgspec.Struct, frozen=True):
    """When the file of a channel is full, and how many full ones are kept; None: by no size, at no time, all."""

    size_bytes: int | None = None
    every_s: float | None = None
    keep: int | None = None


class FileEnd(msgspec.Struct, frozen=True):
    """The file that a channel ends or begins in, framed by `codec` (its name).

    Where it begins in it, `follow` says whether it is read on as it grows, and a message is at most `max_message_bytes`
    long.
    """

    path: Path
    codec: str
    rotation: Rotation = Rotation()
    follow: bool = False
    max_message_bytes: int = 16 * MIB


class Tls(msgspec.Struct, frozen=True):
    """The certificates of a channel, as PEM files.

    `ca` None: those that this machine trusts. `cert` and `key` None: none is shown to the other side, which only who
    connects may do. A listener with a `ca` asks for a certificate of it. `name` is what the listener's certificate must
    be for (None: the host that is connected to).
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None


class Network(msgspec.Struct, frozen=True):
    """How the messages of a channel get to another runner, or (`plain`) to any other program.

    `host` None: that of the runner that listens; `port` 0: one that is free, or `servers` instead. `path` is that of a
    URL, from its slash on. `binds` says at which end the address is listened at. Messages are framed by `codec` (its
    name) on the way, and at most `max_message_bytes` long. `keys` is the folder of CURVE keys. `token` is never shown.
    `insecure`: an address that others reach may be listened at without protection. `end` "close": a plain peer that
    ends its connection in order has ended the channel. `servers`, `subject`, `stream` and `group` are a broker's; None:
    made of the names of pipeline and channel.
    """

    codec: str = "lines"
    host: str | None = None
    port: int = 0
    path: str = "/"
    binds: Literal["reader", "writer"] = "reader"
    plain: bool = False
    max_message_bytes: int = 16 * MIB
    tls: Tls | None = None
    keys: Path | None = None
    token: str | None = None
    insecure: bool = False
    end: Literal["never", "close"] = "never"
    servers: tuple[str, ...] = ()
    subject: str | None = None
    stream: str | None = None
    group: str | None = None

    def __repr__(self) -> str:
        return f"Network({self.host!r}, {self.port})"  # its token must not come out in somebody's traceback


class Channel(msgspec.Struct, frozen=True):
    """One channel's spec; `writers` and `readers` are names of processors, in file order, each once.

    `schema` is a JSON Schema, as JSON, that messages must fit (None: they need not).
    `file` is set where one of its ends is a file; then it has no writers, or no readers.
    `network` is set where it leaves its runner. In the part of a pipeline that one runner has, `writers` and `readers`
    are that runner's own, and `far_writers` and `far_readers` are the runners at the other end: an empty name is a
    runner that the file does not know.
    """

    name: str
    kind: str = "memory"
    capacity_bytes: int = 8 * MIB
    on_full: OnFull = OnFull.BLOCK
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    durability: Durability = Durability.MEMORY
    schema: str | None = None
    file: FileEnd | None = None
    network: Network | None = None
    far_writers: tuple[str, ...] = ()
    far_readers: tuple[str, ...] = ()

    @property
    def durable(self) -> bool:
        """Whether its messages outlive the runner."""
        return self.durability is not Durability.MEMORY


class Runner(msgspec.Struct, frozen=True):
    """A runner of a pipeline that is split over several; `host` (None: this machine) is where others reach it."""

    name: str
    host: str | None = None


class Pipeline(msgspec.Struct, frozen=True):
    """A whole valid pipeline, or the part of it that one runner has.

    `folder` is what relative paths were resolved against; `file` None: built in Python. `runners` is empty where one
    runner has all of it; `runner` is set in a part: the runner whose part it is.
    """

    name: str
    processors: dict[str, Processor]
    channels: dict[str, Channel]
    folder: Path
    file: Path | None = None
    drain_s: float = 30.0
    runners: dict[str, Runner] = msgspec.field(default_factory=dict)
    runner: str | None = None
