"""A sidecar without a pipeline file: one processor whose channels are URLs, as `sidecar.toml` or variables say it.

Both say the same words. They become a pipeline with one processor, and problems of that are told where its words stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from msgspec import DecodeError, Struct, convert
from msgspec.json import decode
from msgspec.structs import replace

from runner.errors import Problem, SpecError
from runner.spec.findings import Source, listed, show, show_path
from runner.spec.interpolate import Interpolated
from runner.spec.load import LoadedPipeline, load_source
from runner.spec.model import Home
from runner.spec.reading import read_source
from runner.spec.scanner import Path as Words
from runner.spec.words import nearest

NAME = "sidecar"
PROCESSOR = "program"
VARIABLES: dict[str, Words] = {
    "CONNECTOR_NAME": ("name",),
    "CONNECTOR_DRAIN": ("drain",),
    "CONNECTOR_PROCESSOR": ("processor",),
    "CONNECTOR_COMMAND": ("command",),
    "CONNECTOR_DIRECTORY": ("directory",),
    "CONNECTOR_CONTRACT": ("contract",),
    "CONNECTOR_CODEC": ("codec",),
    "CONNECTOR_RESUME": ("resume",),
    "CONNECTOR_REPLICAS": ("replicas",),
    "CONNECTOR_ORDER": ("order",),
    "CONNECTOR_IN_FLIGHT": ("in_flight", "bytes"),
    "CONNECTOR_IN_FLIGHT_MESSAGES": ("in_flight", "messages"),
    "CONNECTOR_BATCH_MESSAGES": ("batch", "messages"),
    "CONNECTOR_BATCH_BYTES": ("batch", "bytes"),
    "CONNECTOR_BATCH_WAIT": ("batch", "wait"),
    "CONNECTOR_MAX_MESSAGE": ("max_message",),
    "CONNECTOR_GUARD": ("guard",),
    "CONNECTOR_BRIDGE": ("bridge",),
    "CONNECTOR_END": ("end",),
    "CONNECTOR_RESTART": ("restart",),
    "CONNECTOR_STALL": ("stall",),
    "CONNECTOR_STOP_GRACE": ("stop", "grace"),
    "CONNECTOR_STOP_SIGNAL": ("stop", "signal"),
    "CONNECTOR_TRUST": ("trust",),
    "CONNECTOR_NETWORK": ("network",),
}
"""What may be said by the environment, beside CONNECTOR_READS and CONNECTOR_WRITES (and CONNECTOR_READS_PORT)."""
_PREFIX = "CONNECTOR_"
_OTHERS = (
    "CONNECTOR_FILE",
    "CONNECTOR_CONFIG",
    "CONNECTOR_RUNNER",
    "CONNECTOR_BRIDGES",
    "CONNECTOR_STATE_DIR",
    "CONNECTOR_HEALTH",
)
"""What the command itself looks at."""
_GIVEN = (
    "CONNECTOR_PIPELINE",
    "CONNECTOR_INSTANCE",
    "CONNECTOR_ATTEMPT",
    "CONNECTOR_RUN",
    "CONNECTOR_WRITTEN",
    "CONNECTOR_PARAMS",
    "CONNECTOR_BATCH",
    "CONNECTOR_BATCH_CHANNEL",
    "CONNECTOR_BATCH_FILE",
    "CONNECTOR_STATE_FILE",
    "CONNECTOR_PROTOCOL",
    "CONNECTOR_ENDPOINT",
)
_GIVEN_BY_NAME = ("CONNECTOR_PARAM_", "CONNECTOR_READER_", "CONNECTOR_WRITER_", "CONNECTOR_WRITTEN_")
"""What a runner gives its programs, of which one may be a sidecar."""
_SIDES = ("reads", "writes")
_OWN = {"name", "drain", "processor", *_SIDES}
_KINDS = {
    "tcp": "tcp",
    "ws": "websocket",
    "wss": "websocket",
    "http": "http",
    "https": "http",
    "zeromq+tcp": "zeromq",
    "nats": "nats",
}
_SCHEMES = [f"{scheme}://" for scheme in _KINDS]
_TLS = {"ca": "ca", "cert": "cert", "key": "key", "host": "name"}
_CHANNEL = (
    "peer",
    "token",
    "durability",
    "capacity",
    "on_full",
    "codec",
    "max_message",
    "end",
    "stream",
    "group",
    "keys",
)
_QUERY = ("channel", "listen", "insecure", *_CHANNEL, *_TLS)
_LONGEST_NAME = 63


class Said(Struct, frozen=True):
    """What was said, as the words of a sidecar.toml. `variables`: which of them came from which variable."""

    source: Source
    folder: Path
    variables: dict[Words, str] = {}


def from_environment(env: Mapping[str, str], folder: Path) -> Said:
    """The words that variables say; relative paths start from `folder`.

    Raises SpecError for a variable that is nearly one of ours, and for a broken list.
    """
    _refuse_misspelled(env)
    data: dict[str, Any] = {}
    variables: dict[Words, str] = {}
    for variable, words in sorted(_said_by(env)):
        table: dict[Any, Any] = data
        for word in words[:-1]:
            table = table.setdefault(word, {})
        text = env[variable].replace("${", "$${")
        table[words[-1]] = _value(words, text)
        variables[words] = variable
    return Said(Source("the environment", data), folder, variables)


def channels_said(env: Mapping[str, str]) -> list[str]:
    """The variables by which `env` says what is read and written."""
    return [variable for variable, words in _said_by(env) if words[0] in _SIDES]


def _refuse_misspelled(env: Mapping[str, str]) -> None:
    """Others may have variables of that kind, as Kubernetes has for a service of the name; so only near misses."""
    known = (*VARIABLES, *_OTHERS, "CONNECTOR_READS", "CONNECTOR_WRITES")
    ends = [each.removeprefix(_PREFIX) for each in known]  # what they all begin with makes everything near
    problems = []
    for variable in env:
        if not variable.startswith(_PREFIX) or variable in known or variable in _GIVEN:
            continue
        if variable.startswith(("CONNECTOR_READS_", "CONNECTOR_WRITES_", *_GIVEN_BY_NAME)):
            continue
        close = nearest(variable.removeprefix(_PREFIX), ends)
        if close is not None:
            problems.append(Problem("error", "means nothing", "", f"did you mean {_PREFIX}{close}?", variable))
    if problems:
        raise SpecError(tuple(problems))


def _value(words: Words, text: str) -> Any:
    """What a variable's text stands for: URLs are separated by spaces, and a command may be a JSON list."""
    if words[0] in _SIDES:
        return text.split()
    if words != ("command",) or not text.startswith("["):
        return Interpolated(text)
    try:
        return convert(decode(text), list[str])
    except DecodeError as error:  # a ValidationError is one
        message = f"begins as a list, and is no JSON list of strings: {error}"
        remedy = 'write ["python3", "clean.py"], or python3 clean.py'
        raise SpecError((Problem("error", message, "command", remedy, "CONNECTOR_COMMAND"),)) from None


def from_file(file: Path) -> Said:
    """The words of a sidecar.toml. Raises SpecError where it cannot be read."""
    return Said(read_source(file, str(file)), file.absolute().parent)


def with_command(said: Said, command: Sequence[str]) -> Said:
    """The same, with a command from the command line in place of any other."""
    words = [word.replace("${", "$${") for word in command]
    return replace(said, source=replace(said.source, data={**said.source.data, "command": words}))


def as_toml(said: Said) -> dict[str, Any]:
    """The words as TOML has them: numbers and booleans as such, what stands alone not in a list or table."""
    data = said.source.data
    written = {word: _plain(value) for word, value in data.items() if word not in _SIDES}
    for side, usual in zip(_SIDES, ("stdin", "stdout"), strict=True):
        ports = {port: urls[0] if len(urls) == 1 else urls for port, urls in data.get(side, {}).items()}
        if ports:
            written[side] = ports[usual] if ports.keys() == {usual} else ports
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Interpolated):
        return int(value) if re.fullmatch("[0-9]{1,9}", value) else str(value)
    return value


def load_sidecar(said: Said, *, env: Mapping[str, str], home: Home | None) -> LoadedPipeline:
    """The pipeline of it. Raises SpecError with every problem, each where its words stand."""
    made = _Maker(said)
    made.make()
    if made.problems:
        raise SpecError(tuple(made.problems))
    source = Source(said.source.name, made.document, made.positions())
    try:
        loaded = load_source(source, folder=said.folder, env=env, home=home)
    except SpecError as error:
        raise SpecError(tuple(made.placed(problem) for problem in error.problems)) from None
    return LoadedPipeline(loaded.pipeline, tuple(made.placed(problem) for problem in loaded.warnings))


def _said_by(env: Mapping[str, str]) -> Iterator[tuple[str, Words]]:
    """The variables that are set and say something, each with its words."""
    for variable, value in env.items():
        if not value:
            continue  # Compose sets what is not given to nothing
        if variable in VARIABLES:
            yield variable, VARIABLES[variable]
        for side in _SIDES:
            start = f"CONNECTOR_{side.upper()}"
            if variable == start:
                yield variable, (side, "stdin" if side == "reads" else "stdout")
            elif variable.startswith(f"{start}_"):
                yield variable, (side, variable.removeprefix(f"{start}_").lower().replace("_", "-"))


class _Maker:
    """Makes the pipeline. `origin` maps its paths to the words that they come from."""

    def __init__(self, said: Said) -> None:
        self.document: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.origin: dict[Words, Words] = {}
        self._said = said
        self._words = said.source.data
        self._channels: dict[str, Any] = {}

    def make(self) -> None:
        """Fill in what `load_sidecar` needs."""
        words = self._words
        name = words.get("processor", PROCESSOR)
        if not isinstance(name, str):
            self._wrong(("processor",), "is no name", 'write a string, such as "clean"')
            return
        table = {word: value for word, value in words.items() if word not in _OWN}
        for word in table:
            self.origin["processors", name, word] = (word,)
        self.origin["processors", name] = ("processor",)
        if not {"command", "entrypoint", "use"} & table.keys():
            remedy = 'put a program behind --, or say what runs in its container: CONNECTOR_COMMAND, or command = ["…"]'
            self._wrong((), "nothing says what to run", remedy)
        for side in _SIDES:
            if side in words:
                table[side] = self._ports(side, words[side], name)
        self.document = {"name": words.get("name", NAME), "processors": {name: table}, "channels": self._channels}
        self.origin["name",] = ("name",)
        if "drain" in words:
            self.document["drain"] = words["drain"]
            self.origin["drain",] = ("drain",)

    def positions(self) -> dict[Words, Any]:
        """The places of the document, where a file was read."""
        given = self._said.source.positions
        if not given:
            return {}
        found: dict[Words, Any] = {(): given[()]}
        for path, words in self.origin.items():
            for place, where in given.items():
                if place[: len(words)] == words:
                    found[path + place[len(words) :]] = where
        return found

    def placed(self, problem: Problem) -> Problem:
        """The same, said of the variable that it comes from."""
        for path, words in sorted(self.origin.items(), key=lambda pair: -len(pair[0])):
            shown = show_path(path)
            if problem.key == shown or problem.key.startswith((f"{shown}.", f"{shown}[")):
                begins = (each for given, each in self._said.variables.items() if given[: len(words)] == words)
                variable = next(begins, None)
                if variable is not None:
                    return _of(problem, variable)
                break
        return problem

    def _ports(self, side: str, written: Any, processor: str) -> dict[str, list[str]]:
        usual = "stdin" if side == "reads" else "stdout"
        by_port = written if isinstance(written, dict) else {usual: written}
        ports: dict[str, list[str]] = {}
        for port, urls in by_port.items():
            words: Words = (side, port) if isinstance(written, dict) else (side,)
            each = urls if isinstance(urls, list) else [urls]
            self.origin["processors", processor, side, port] = words
            names = [self._channel(words, url, reads=side == "reads") for url in each]
            ports[port] = [name for name in names if name is not None]
        return ports

    def _channel(self, words: Words, written: Any, *, reads: bool) -> str | None:
        """The name of a channel that is made of a URL; None after an error."""
        try:
            url = _Url.of(written)
            table = url.table(reads=reads)
        except _UrlError as error:
            self._wrong(words, error.message, error.remedy)
            return None
        if url.channel in self._channels:
            message = f"{url} makes the channel {url.channel}, which is there already"
            self._wrong(words, message, "put channel=NAME behind its ?")
            return None
        self._channels[url.channel] = table
        self.origin["channels", url.channel] = words
        return url.channel

    def _wrong(self, words: Words, message: str, remedy: str | None = None) -> None:
        line, column = self._said.source.place(words, "value")
        key = ".".join(str(word) for word in words)
        problem = Problem("error", message, key, remedy, self._said.source.name, line, column)
        variable = self._said.variables.get(words)
        self.problems.append(problem if variable is None else _of(problem, variable))


def _of(problem: Problem, variable: str) -> Problem:
    return Problem(problem.severity, problem.message, problem.key, problem.remedy, variable)


class _UrlError(Exception):
    """A URL that no channel can be made of."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class _Url(Struct, frozen=True):
    """A channel's URL, taken apart."""

    written: str
    kind: str
    scheme: str
    place: str
    port: int | None
    path: str
    given: dict[str, str]

    def __str__(self) -> str:
        return '"' + re.sub(r"//[^/@]*@", "//…@", self.written) + '"'  # a password is not shown

    @classmethod
    def of(cls, written: Any) -> _Url:
        """Raises _UrlError."""
        remedy = f"write {listed(_SCHEMES)}, with host and port"
        if not isinstance(written, str):
            raise _UrlError("is no URL", remedy)
        try:
            parts = urlsplit(written)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            url = cls(
                written,
                _KINDS.get(parts.scheme, ""),
                parts.scheme,
                parts.netloc,
                parts.port,
                parts.path.rstrip("/"),
                dict(query),
            )
        except ValueError:
            raise _UrlError(f"{show(written.partition('//')[0])}… is no URL", remedy) from None
        if not url.kind or not url.place or parts.fragment:
            raise _UrlError(f"{url} is no URL of a channel", remedy)
        unknown = [key for key, _ in query if key not in _QUERY]
        if unknown or len(url.given) < len(query):
            what = f'"{unknown[0]}" means nothing' if unknown else "one key stands twice"
            raise _UrlError(f"{what} behind the ? of {url}", f"it may have {listed(list(_QUERY), 'and')}")
        return url

    @property
    def channel(self) -> str:
        """A channel's name: the one that is given, or one that both ends make of where they meet."""
        if "channel" in self.given:
            return self.given["channel"]
        path = self.path.strip("/")
        place = path if self.kind == "nats" and path else f"{self.kind}-{self.port or self.scheme}-{path}"
        name = re.sub(r"[^a-z0-9_]+", "-", place.lower()).strip("-_")
        return (name if name[:1].isalpha() else f"{self.kind}-{name}")[:_LONGEST_NAME]

    def table(self, *, reads: bool) -> dict[str, Any]:
        """The channel as a pipeline file has it. `reads`: its processor does. Raises _UrlError."""
        given = self.given
        for key in ("listen", "insecure"):
            if given.get(key, "true") not in {"true", "false"}:
                raise _UrlError(f"{key}={given[key]} means nothing", f"write {key}=true or {key}=false")
        table: dict[str, Any] = {"kind": self.kind, **{key: given[key] for key in _CHANNEL if key in given}}
        if self.kind == "nats" and self.path.strip("/"):
            table["subject"] = self.path.strip("/")
        scheme = "tcp" if self.kind == "zeromq" else self.scheme
        table["url"] = f"{scheme}://{self.place}" + ("" if self.kind == "nats" else self.path)
        tls = {key: given[word] for word, key in _TLS.items() if word in given}
        if tls:
            table["tls"] = tls
        if given.get("insecure") == "true":
            table["insecure"] = True
        if "listen" in given:
            here = given["listen"] == "true"
            plain = self.kind == "http" or given.get("peer") == "plain"
            table["listen"] = here if plain else ("reader" if here == reads else "writer")
        return table
