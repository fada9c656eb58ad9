"""What the user may write: the pipeline file and `processor.toml`, key by key.

These structs give the JSON Schema (`runner.spec.schema`) and drive the walk that finds every error
(`runner.spec.walk`). What the values mean once they are put together is `runner.spec.model`.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from runner.spec.channel_document import ChannelDocument, RunnerDocument
from runner.spec.values import (
    Address,
    Backoff,
    CodecName,
    Count,
    Duration,
    DurationOrZero,
    EnvName,
    Image,
    Name,
    Network,
    RateText,
    Secret,
    Size,
    Text,
    Url,
    Word,
    later,
    meta,
)

When = Literal["on-failure", "always", "never"]
RESTART_WORDS = {
    "no": "never",
    "unless-stopped": "always",
    "on_failure": "on-failure",
    "onfailure": "on-failure",
    "false": "never",
    "true": "always",
}
Signal = Literal["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "KILL"]
SIGNAL_WORDS = {f"SIG{name}": name for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "KILL")}
Command = Annotated[list[Text], Meta(min_length=1)] | Word
Channels = Name | Annotated[list[Name], Meta(min_length=1)]
Ports = Name | Annotated[list[Name], Meta(min_length=1)] | Annotated[dict[Name, Channels], Meta(min_length=1)]


class InFlightDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """How much may be handed to an instance without being acknowledged."""

    bytes: Annotated[Size, meta("Bytes in flight.")] = "1MiB"
    messages: Annotated[Count, meta("Messages in flight. Without it only the bytes are bounded.")] | UnsetType = UNSET


class BatchDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """What one run of a program is given under contract "batch"."""

    messages: Annotated[Count, meta("At most so many messages.")] = 1000
    bytes: Annotated[Size, meta("At most so many bytes; a longer message comes alone.")] = "8MiB"
    wait: Annotated[DurationOrZero, meta("How long a batch that is not full waits for more messages.")] = "1s"


class GuardDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """What may be data on stdout, by a regular expression."""

    match: Annotated[Text, meta("A regular expression. A message in which it is found is data, the rest is stray.")]


class RestartDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """When and how a program is started again."""

    when: Annotated[When, meta("Which ends it is started again after.", words=RESTART_WORDS)] = "on-failure"
    backoff: Annotated[
        Backoff, meta('The wait before a restart: "A", or "A..B" for a wait that starts at A and doubles up to B.')
    ] = "100ms..30s"
    limit: Annotated[RateText, meta("More deaths than this fail the processor for good.")] = "5 in 60s"
    reset_after: Annotated[Duration, meta("After this long in good health the backoff starts over.")] = "60s"


class StopDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """How a program is asked to end."""

    grace: Annotated[DurationOrZero, meta("How long it may take after each step before the next, harder one.")] = "5s"
    signal: Annotated[Signal, meta("The signal that asks it to end.", words=SIGNAL_WORDS)] = "TERM"


class ProbeDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A check of a running program; exactly one of file, tcp, http and command says what is looked at."""

    file: (
        Annotated[Word, meta("Passes when this path is there. Relative to the file it is written in.")] | UnsetType
    ) = UNSET
    tcp: Annotated[Address, meta("Passes when something listens at this HOST:PORT.")] | UnsetType = UNSET
    http: Annotated[Url, meta("Passes when this URL answers with a status of 200 to 399.")] | UnsetType = UNSET
    command: Annotated[Command, meta("Passes when this command exits with 0.")] | UnsetType = UNSET
    every: Annotated[Duration, meta("The time between two checks.")] | UnsetType = UNSET
    failures: Annotated[Count, meta("This many failed checks in a row count.")] | UnsetType = UNSET


class ReadyDocument(ProbeDocument, forbid_unknown_fields=True, kw_only=True):
    """When an instance is ready for messages: exactly one of line, file, tcp, http and command."""

    line: (
        Annotated[Text, meta("A regular expression. Ready when it is found in a line of the program's log.")]
        | UnsetType
    ) = UNSET
    timeout: Annotated[Duration, meta("It must be ready this long after its start; otherwise the start failed.")] = (
        "60s"
    )


class LiveDocument(ProbeDocument, forbid_unknown_fields=True, kw_only=True):
    """Whether an instance is still well: exactly one of file, tcp, http and command. One that fails is restarted."""

    timeout: Annotated[Duration, meta("One check may take this long.")] = "2s"


class PoisonDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """When a message that kills its reader is set aside."""

    after: Annotated[Count, meta("Deaths in a row without an answer that make a message suspect.")] = 3
    limit: Annotated[RateText, meta("More dead letters than this fail the processor.")] = "100 in 60s"


class ResourcesDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """Limits of one instance. What is left out is not limited."""

    memory: Annotated[Size, meta("Memory in bytes, without swap.")] | UnsetType = UNSET
    cpus: (
        Annotated[
            float,
            Meta(gt=0, le=1_000_000, description="Processor cores; 0.5 is half of one."),
        ]
        | UnsetType
    ) = UNSET
    pids: Annotated[Count, meta("Processes and threads.")] | UnsetType = UNSET
    files: Annotated[Count, meta("Open files.")] | UnsetType = UNSET
    disk: (
        Annotated[Size, meta("Disk space: of /tmp behind a wall, of each single file of a bare process.")] | UnsetType
    ) = UNSET


class BuildDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """How an image is made of the folder: by a Dockerfile of its own, or by a generated one."""

    dockerfile: Annotated[Word, meta("A Dockerfile, relative to the folder.")] | UnsetType = UNSET
    context: Annotated[Word, meta("The folder that the Dockerfile sees. Default: the folder.")] | UnsetType = UNSET
    target: Annotated[Word, meta("The stage of the Dockerfile that is the image.")] | UnsetType = UNSET
    args: Annotated[dict[EnvName, Text], meta("Arguments of the Dockerfile.")] | UnsetType = UNSET
    language: (
        Annotated[
            Literal["python", "node", "java", "static"],
            meta(
                "What the program is written in. Default: what the command's first word tells.",
                words={"js": "node", "javascript": "node", "python3": "python", "go": "static", "rust": "static"},
            ),
        ]
        | UnsetType
    ) = UNSET
    base: Annotated[Word, meta("The image that a generated Dockerfile starts from.")] | UnsetType = UNSET
    packages: Annotated[list[Word], meta("Debian packages that a generated Dockerfile installs.")] | UnsetType = UNSET


Codec = Annotated[
    CodecName | Annotated[dict[Name, CodecName], Meta(min_length=1)],
    meta("How bytes become messages: for all ports, or a table by port."),
]


class ProcessorKeys(Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys that a pipeline and a processor.toml share."""

    command: (
        Annotated[
            Command,
            meta("The program and its arguments. A string is split into words; no shell runs."),
        ]
        | UnsetType
    ) = UNSET
    entrypoint: (
        Annotated[Command, meta("What an image starts instead of its own entry point, as in Compose.")] | UnsetType
    ) = UNSET
    pull: Annotated[
        Literal["missing", "always", "never"],
        meta("When the image is fetched.", words={"if_not_present": "missing", "ifnotpresent": "missing"}),
    ] = "missing"
    codec: Codec | UnsetType = UNSET
    contract: Annotated[
        Literal["stream", "one-to-one", "batch", "acknowledged"],
        meta(
            "How outputs answer inputs.",
            words={"1-1": "one-to-one", "1:1": "one-to-one", "one_to_one": "one-to-one", "none": "stream"},
        ),
    ] = "stream"
    resume: Annotated[
        Literal["none", "skip", "self", "live"],
        meta("Only for a source: what its restart means for what it had written before."),
    ] = "none"
    in_flight: (
        Annotated[InFlightDocument, meta("At most this much is handed to an instance and not acknowledged.")]
        | UnsetType
    ) = UNSET
    batch: (
        Annotated[BatchDocument, meta('What one run of the program is given; for contract = "batch".')] | UnsetType
    ) = UNSET
    max_outputs: (
        Annotated[Size, meta('The most that the run of one batch may write; for contract = "batch". Default: 1GiB.')]
        | UnsetType
    ) = UNSET
    replicas: Annotated[
        int, Meta(ge=1, le=1000, description="How many instances run; each message goes to one of them.")
    ] = 1
    order: (
        Annotated[
            Literal["keep", "any"],
            meta('Order of the answers of replicas. Default: "keep" for one-to-one, "any" otherwise.'),
        ]
        | UnsetType
    ) = UNSET
    max_message: Annotated[Size, meta("The longest message it may write.")] = "16MiB"
    guard: Annotated[
        Literal["none", "json"] | GuardDocument,
        meta("What may be data on stdout: everything, whole JSON values, or what a regular expression finds."),
    ] = "none"
    bridge: Annotated[
        Literal["stdio", "zeromq"],
        meta(
            "How the program is reached: by its standard input and output, or by ZeroMQ sockets of its own.",
            words={"zmq": "zeromq", "0mq": "zeromq", "pipe": "stdio", "pipes": "stdio"},
        ),
    ] = "stdio"
    end: (
        Annotated[
            Literal["empty", "signal"],
            meta(
                'What tells a program with bridge = "zeromq" that its input has ended: an empty message, or (the '
                "default) the stop signal."
            ),
        ]
        | UnsetType
    ) = UNSET
    restart: Annotated[
        When | RestartDocument, meta("When it is started again, as a word or a table.", words=RESTART_WORDS)
    ] = "on-failure"
    stop: Annotated[StopDocument, meta("How it is asked to end.")] | UnsetType = UNSET
    ready: Annotated[ReadyDocument, meta("Messages flow only once it is ready.")] | UnsetType = UNSET
    live: Annotated[LiveDocument, meta("A processor that fails this is restarted.")] | UnsetType = UNSET
    stall: (
        Annotated[Duration, meta("Input in flight and no answer for this long: it is restarted. Off by default.")]
        | UnsetType
    ) = UNSET
    continue_on_error: Annotated[
        bool, meta("When it fails for good, its inputs count as unread, its outputs end and the rest goes on.")
    ] = False
    poison: (
        Annotated[
            PoisonDocument,
            meta("When a message that kills its reader is set aside; for contracts that answer."),
        ]
        | UnsetType
    ) = UNSET
    trust: Annotated[
        Literal["trusted", "untrusted"],
        meta('Whether it is walled off: "untrusted" turns the whole profile on.'),
    ] = "trusted"
    network: (
        Annotated[
            Network,
            meta(
                'Which network it sees: "none", "outbound", "host", or one of the engine\'s by its name. Default: '
                '"outbound" for images, "host" for commands, "none" when untrusted.'
            ),
        ]
        | UnsetType
    ) = UNSET
    mounts: Annotated[list[Word], meta("SOURCE[:TARGET][:rw], as in Compose; read-only by default.")] | UnsetType = (
        UNSET
    )
    resources: Annotated[ResourcesDocument, meta("Limits of one instance.")] | UnsetType = UNSET
    env: (
        Annotated[
            dict[EnvName, Text],
            meta(
                "Environment variables, added to those of the runner; of an image, to its own. An untrusted processor "
                "starts from PATH, HOME and LANG only."
            ),
        ]
        | UnsetType
    ) = UNSET
    secrets: (
        Annotated[
            dict[EnvName, Secret],
            meta('Environment variables whose values are never shown: "file:PATH" or "env:NAME".'),
        ]
        | UnsetType
    ) = UNSET
    directory: (
        Annotated[
            Word, meta("Where the program runs. Default: the folder of the file that has its command; an image's own.")
        ]
        | UnsetType
    ) = UNSET


class ProcessorDocument(ProcessorKeys, forbid_unknown_fields=True, kw_only=True):
    """A processor: exactly one of command, image and use; an image may have a command as well."""

    image: Annotated[Image, meta("A container image, with its own command unless one is given.")] | UnsetType = UNSET
    use: Annotated[Word, meta("A folder with a processor.toml.")] | UnsetType = UNSET
    params: Annotated[dict[Word, Any], meta("Values for the params that the processor.toml declares.")] | UnsetType = (
        UNSET
    )
    reads: (
        Annotated[Ports, meta("The channel it reads on stdin, a list of them, or a table of channels by port.")]
        | UnsetType
    ) = UNSET
    writes: (
        Annotated[Ports, meta("The channel it writes on stdout, a list of them, or a table of channels by port.")]
        | UnsetType
    ) = UNSET
    runner: Annotated[Name, meta("Which of the pipeline's runners it belongs to.")] | UnsetType = UNSET


class PipelineDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A pipeline: processors and the channels that join them."""

    name: Annotated[Name, meta("The pipeline's name.")]
    drain: Annotated[DurationOrZero, meta("A whole stop takes at most this.")] = "30s"
    processors: Annotated[dict[Name, ProcessorDocument], Meta(min_length=1, description="The processors, by name.")]
    channels: Annotated[dict[Name, ChannelDocument], meta("The channels, by name.")] | UnsetType = UNSET
    runners: (
        Annotated[
            dict[Name, RunnerDocument],
            Meta(min_length=1, description="The runners that the pipeline is split over, by name."),
        ]
        | UnsetType
    ) = UNSET


class ParamDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A param of a processor: what a pipeline may set."""

    type: Annotated[
        Literal["string", "integer", "number", "boolean", "duration", "size", "path", "list"],
        meta(
            "What its values are.",
            words={
                "str": "string",
                "text": "string",
                "int": "integer",
                "float": "number",
                "bool": "boolean",
                "array": "list",
                "bytes": "size",
                "time": "duration",
                "file": "path",
            },
        ),
    ]
    default: Annotated[Any, meta("Its value where the pipeline gives none.")] = UNSET
    required: Annotated[bool, meta("Whether the pipeline must give it.")] = False
    minimum: (
        Annotated[int | float | Text, meta("The least value (or the least number of elements of a list).")] | UnsetType
    ) = UNSET
    maximum: Annotated[int | float | Text, meta("The largest value (or the most elements of a list).")] | UnsetType = (
        UNSET
    )
    choices: Annotated[list[Any], Meta(min_length=1, description="The only values it may have.")] | UnsetType = UNSET
    secret: Annotated[bool, meta("Never shown, and not put in a command.")] = False
    description: Annotated[Text, meta("What it is for.")] | UnsetType = UNSET


class PortDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """A port of a processor."""

    codec: Annotated[CodecName, meta("How bytes become messages.")] | UnsetType = UNSET
    schema: Annotated[Word, later("A JSON Schema that messages must fit.", "leave it out")] | UnsetType = UNSET
    description: Annotated[Text, meta("What it carries.")] | UnsetType = UNSET


class ProcessorFile(ProcessorKeys, forbid_unknown_fields=True, kw_only=True):
    """A processor.toml: a processor that is written once and used in many pipelines."""

    name: Annotated[Name, meta("The processor's name.")] | UnsetType = UNSET
    version: Annotated[Text, meta("Its version.")] | UnsetType = UNSET
    description: Annotated[Text, meta("What it does.")] | UnsetType = UNSET
    image: (
        Annotated[Image, meta("Its container image, with its own command; used where it runs in a container.")]
        | UnsetType
    ) = UNSET
    params: Annotated[dict[Name, ParamDocument], meta("What a pipeline may set, by name.")] | UnsetType = UNSET
    reads: Annotated[dict[Name, PortDocument], meta("The ports that it reads.")] | UnsetType = UNSET
    writes: Annotated[dict[Name, PortDocument], meta("The ports that it writes.")] | UnsetType = UNSET
    build: Annotated[BuildDocument, meta("How its image is made, by connector build.")] | UnsetType = UNSET
