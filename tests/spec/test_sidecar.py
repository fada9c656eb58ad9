"""A sidecar without a pipeline file: what variables and a sidecar.toml say, and what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from runner.errors import SpecError
from runner.spec.load import LoadedPipeline
from runner.spec.model import Contract, Durability, Home, Pipeline
from runner.spec.sidecar import as_toml, from_environment, from_file, load_sidecar, with_command

READS = "tcp://127.0.0.1:7400"


def of_variables(tmp_path: Path, *command: str, **variables: str) -> LoadedPipeline:
    said = from_environment({f"CONNECTOR_{name}": value for name, value in variables.items()}, tmp_path)
    if command:
        said = with_command(said, command)
    return load_sidecar(said, env={"PATH": "/usr/bin:/bin"}, home=None if command else Home.ATTACHED)


def pipeline(tmp_path: Path, **variables: str) -> Pipeline:
    return of_variables(tmp_path, "cat", **variables).pipeline


def refused(tmp_path: Path, **variables: str) -> str:
    with pytest.raises(SpecError) as found:
        of_variables(tmp_path, "cat", **variables)
    return str(found.value)


def test_one_processor_between_two_channels(tmp_path: Path) -> None:
    made = pipeline(
        tmp_path,
        READS="nats://broker:4222/flights.raw",
        WRITES="wss://store.example:443/clean?peer=plain&token=env:PATH",
        CONTRACT="one-to-one",
        REPLICAS="3",
        STOP_GRACE="7s",
        DRAIN="11s",
        NAME="flights",
    )
    assert (made.name, made.drain_s, list(made.processors)) == ("flights", 11, ["program"])
    spec = made.processors["program"]
    assert (spec.command, spec.home, spec.contract, spec.replicas) == (
        ("cat",),
        Home.PROCESS,
        Contract.ONE_TO_ONE,
        3,
    )
    assert spec.stop.grace_s == 7
    raw, clean = made.channels["flights-raw"], made.channels["websocket-443-clean"]
    assert (raw.kind, raw.readers, raw.writers) == ("nats", ("program",), ())
    assert raw.network is not None
    assert (raw.network.servers, raw.network.subject) == (("nats://broker:4222",), "flights.raw")
    assert (clean.kind, clean.readers, clean.writers) == ("websocket", (), ("program",))
    assert clean.network is not None
    assert (clean.network.host, clean.network.port, clean.network.path) == ("store.example", 443, "/clean")
    assert clean.network.token == "/usr/bin:/bin"
    assert clean.network.tls is not None


@pytest.mark.parametrize(
    ("variable", "query", "binds"),
    [
        ("READS", "", "reader"),
        ("WRITES", "", "reader"),
        ("READS", "listen=false", "writer"),
        ("WRITES", "listen=true", "writer"),
        ("READS", "peer=plain", "writer"),  # it connects to the URL
        ("WRITES", "peer=plain", "reader"),
        ("READS", "peer=plain&listen=true", "reader"),
        ("WRITES", "peer=plain&listen=true", "writer"),
    ],
)
def test_who_listens(tmp_path: Path, variable: str, query: str, binds: str) -> None:
    (channel,) = pipeline(tmp_path, **{variable: f"{READS}?{query}" if query else READS}).channels.values()
    assert channel.network is not None
    assert channel.network.binds == binds


def test_both_ends_make_the_same_name(tmp_path: Path) -> None:
    for url in ("tcp://{}:7400?insecure=true", "zeromq+tcp://{}:7400?insecure=true", "nats://{}:4222/A.b"):
        names = [
            list(pipeline(tmp_path, **{variable: url.format(host)}).channels)
            for variable, host in (("READS", "127.0.0.1"), ("WRITES", "store"))
        ]
        assert names[0] == names[1]


def test_ports_and_several_channels(tmp_path: Path) -> None:
    made = pipeline(
        tmp_path,
        READS=f"{READS} tcp://127.0.0.1:7401?durability=process&channel=other",
        READS_LOOK_UP="tcp://127.0.0.1:7402",
        WRITES_ERRORS="http://errors:80/in",
    )
    spec = made.processors["program"]
    assert [(port.name, port.channels) for port in spec.reads] == [
        ("stdin", ("tcp-7400", "other")),
        ("look-up", ("tcp-7402",)),
    ]
    assert [(port.name, port.channels) for port in spec.writes] == [("errors", ("http-80-in",))]
    assert made.channels["other"].durability is Durability.PROCESS


def test_a_container_next_to_it(tmp_path: Path) -> None:
    made = of_variables(tmp_path, READS=READS, PROCESSOR="clean", COMMAND="python3 -c 'print(1)'").pipeline
    spec = made.processors["clean"]
    assert (spec.home, spec.command, spec.directory) == (Home.ATTACHED, ("python3", "-c", "print(1)"), None)


def test_a_command_may_be_a_json_list(tmp_path: Path) -> None:
    made = of_variables(tmp_path, READS=READS, COMMAND='["echo", "a b", ""]').pipeline
    assert made.processors["program"].command == ("echo", "a b", "")
    for wrong in ('["echo"', '["echo", 7]'):
        with pytest.raises(SpecError, match="CONNECTOR_COMMAND: error: command: begins as a list"):
            of_variables(tmp_path, READS=READS, COMMAND=wrong)


def test_what_is_set_to_nothing_is_not_said(tmp_path: Path) -> None:
    assert pipeline(tmp_path, READS=READS, CONTRACT="", WRITES="").processors["program"].contract is Contract.STREAM


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    others = {"SERVICE_HOST": "10.0.0.7", "PORT_7400_TCP": "tcp://10.0.0.7:7400", "PARAM_URL": "x", "RUN": "y"}
    assert pipeline(tmp_path, READS=READS, **others).processors["program"].reads


def test_a_sidecar_may_be_a_program_of_a_runner(tmp_path: Path) -> None:
    """What that one gives it is nearly what a sidecar is told by."""
    given = dict.fromkeys(
        ("WRITER_ERRORS", "READER_S", "WRITTEN_ERRORS", "BATCH", "BATCH_CHANNEL", "BATCH_FILE", "STATE_FILE", "PARAMS"),
        "x",
    )
    assert pipeline(tmp_path, READS=READS, **given).processors["program"].reads


def test_the_environment_is_put_into_nothing(tmp_path: Path) -> None:
    made = of_variables(tmp_path, "echo", "${PATH}", READS=READS).pipeline
    assert made.processors["program"].command == ("echo", "${PATH}")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CONTRACT": "one-to-on"}, 'CONNECTOR_CONTRACT: error: processors.program.contract: expected "acknowledged"'),
        ({"REPLICAS": "two"}, "CONNECTOR_REPLICAS: error: processors.program.replicas: expected a whole number"),
        ({"STOP_GRACE": "soon"}, "CONNECTOR_STOP_GRACE: error: processors.program.stop.grace:"),
        ({"CONTRAT": "one-to-one"}, "CONNECTOR_CONTRAT: error: means nothing\n    did you mean CONNECTOR_CONTRACT?"),
        ({"REED": "tcp://127.0.0.1:1"}, "CONNECTOR_REED: error: means nothing\n    did you mean CONNECTOR_READS?"),
        ({"NAME": "Mine!"}, "CONNECTOR_NAME: error: name:"),
        ({"PROCESSOR": "My program", "COMMAND": "cat"}, 'CONNECTOR_PROCESSOR: error: processors."My program": '),
        ({"READS": "udp://host:1"}, 'CONNECTOR_READS: error: reads.stdin: "udp://host:1" is no URL of a channel'),
        ({"READS": "tcp://host:99999"}, "CONNECTOR_READS: error: reads.stdin: "),
        ({"READS": "tcp://host"}, "CONNECTOR_READS: error: channels.tcp-tcp.url: has no port"),
        ({"READS": "ws://u:secret@h:1?listen=1"}, "listen=1 means nothing"),
        ({"READS": f"{READS}?lisen=true"}, '"lisen" means nothing behind the ? of'),
        ({"READS": f"{READS}?peer=plain&peer=runner"}, "one key stands twice"),
        ({"READS": f"{READS}?durability=paper"}, "CONNECTOR_READS: error: channels.tcp-7400.durability: "),
        ({"WRITES_ERRORS": READS}, "CONNECTOR_WRITES_ERRORS: error: writes.errors: "),
        ({"READS": "tcp://0.0.0.0:7400"}, "others can come to 0.0.0.0"),
    ],
)
def test_what_is_wrong_is_said_of_its_variable(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    told = refused(tmp_path, **{"READS": READS, **variables})
    assert said in told
    assert "secret" not in told


def test_a_program_is_asked_for_in_words_of_a_sidecar(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as found:
        of_variables(tmp_path, READS=READS)
    (problem,) = found.value.problems
    assert "nothing says what to run\n    put a program behind --, or say what" in str(problem)
    assert "CONNECTOR_COMMAND" in str(problem)


def test_no_password_is_shown(tmp_path: Path) -> None:
    assert "//…@host" in refused(tmp_path, READS="tcp://me:secret@host:1#x")


FILE = """\
processor = "clean"
command = ["python3", "clean.py"]
reads = "tcp://127.0.0.1:7400"
contract = "one-to-one"

[writes]
stdout = ["tcp://127.0.0.1:7401", "zeromq+tcp://127.0.0.1:7402"]
errors = "http://127.0.0.1:8080/errors"

[stop]
grace = "3s"
"""


def of_file(tmp_path: Path, text: str) -> Pipeline:
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    return load_sidecar(from_file(file), env={}, home=Home.ATTACHED).pipeline


def test_the_same_words_in_a_file(tmp_path: Path) -> None:
    spec = of_file(tmp_path, FILE).processors["clean"]
    assert [(port.name, port.channels) for port in spec.writes] == [
        ("stdout", ("tcp-7401", "zeromq-7402")),
        ("errors", ("http-8080-errors",)),
    ]
    assert (spec.contract, spec.stop.grace_s) == (Contract.ONE_TO_ONE, 3)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("contract =", "contrat =", 'sidecar.toml:4:1: error: processors.clean.contrat: unknown key "contrat"'),
        ('"one-to-one"', '"one"', "sidecar.toml:4:12: error: processors.clean.contract: "),
        ('"3s"', '"soon"', "sidecar.toml:11:9: error: processors.clean.stop.grace: "),
        ("tcp://127.0.0.1:7400", "no", "sidecar.toml:3:9: error: reads: "),
        ("zeromq+tcp", "zmq", "sidecar.toml:7:10: error: writes.stdout: "),
        ('"clean"', "7", "sidecar.toml:1:13: error: processor: is no name"),
        ('reads = "tcp://127.0.0.1:7400"', "reads = 7", "sidecar.toml:3:9: error: reads: is no URL"),
        ("[stop]", "[stop", "sidecar.toml:10:6: error: no valid TOML"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in FILE
    with pytest.raises(SpecError) as found:
        of_file(tmp_path, FILE.replace(before, after))
    assert said in str(found.value)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    said = from_environment(
        {
            "CONNECTOR_READS": f"{READS} tcp://127.0.0.1:7401",
            "CONNECTOR_WRITES_ERRORS": "http://127.0.0.1:8080/errors",
            "CONNECTOR_PROCESSOR": "clean",
            "CONNECTOR_COMMAND": "python3 clean.py",
            "CONNECTOR_REPLICAS": "2",
            "CONNECTOR_IN_FLIGHT": "2MiB",
        },
        tmp_path,
    )
    file = tmp_path / "sidecar.toml"
    file.write_text(tomli_w.dumps(as_toml(said)))
    data: dict[str, Any] = tomllib.loads(file.read_text())
    assert (data["replicas"], data["reads"]) == (2, [READS, "tcp://127.0.0.1:7401"])
    given, read = (load_sidecar(each, env={}, home=Home.ATTACHED).pipeline for each in (said, from_file(file)))
    assert given == read
