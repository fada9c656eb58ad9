"""Contract `batch` and its keys: what goes with it, what does not, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.spec.model import BatchPolicy
from tests.spec.marked import HEAD, READER, Case, case, check_case, load_case, middle, parametrized

BATCH = 'contract = "batch"\n'
SINK = f"""{HEAD}[processors.a]
command = ["cat"]
writes = "w"
[processors.b]
command = ["cat"]
{BATCH}"""

ERRORS = [
    case("batch of another", middle("¶batch = { messages = 5 }"), 'is for contract = "batch"'),
    case("max_outputs of another", middle('¶max_outputs = "1MiB"'), 'is for contract = "batch"'),
    case("ready", middle(BATCH + "¶ready = { line = 'x' }"), "gets its batch at its start"),
    case("live", middle(BATCH + "¶live = { tcp = 'a:1' }"), "is well when it ends with exit 0 / write stall"),
    case("in_flight", middle(BATCH + "¶in_flight = { messages = 5 }"), "the batch is what is in flight"),
    case("order", middle(BATCH + 'order = ¶"keep"'), "have an order to keep"),
    case(
        "a source",
        f'{HEAD}[processors.a]\ncommand = ["cat"]\ncontract = ¶"batch"\nwrites = "x"\n{READER}',
        "what is read on stdin, and nothing is",
    ),
    case(
        "another input",
        SINK + 'reads = { stdin = "w", ¶more = "x" }\n[processors.c]\ncommand = ["cat"]\nwrites = "x"\n',
        "no other input",
    ),
    case(
        "raw",
        middle('codec = "raw"\ncontract = ¶"batch"')
        .replace('writes = "w"', 'writes = "w"\ncodec = "raw"')
        .replace('reads = "x"', 'reads = "x"\ncodec = "raw"'),
        "no messages that could be put into batches",
    ),
    case("zeromq", middle('contract = ¶"batch"\nbridge = "zeromq"'), "does not go with contract"),
    case("pipe", SINK + 'reads = "w"\nrestart = "never"\n[channels.w]\nkind = "pipe"\n', 'the contract is "stream"'),
    case("messages", middle(BATCH + "batch = { messages = ¶0 }"), "too small"),
    case("bytes", middle(BATCH + 'batch = { bytes = ¶"8MB" }'), "is not a size"),
    case("wait", middle(BATCH + 'batch = { wait = ¶"1" }'), "is not a duration"),
    case("unknown", middle(BATCH + "batch = { ¶count = 5 }"), "batch.count"),
    case(
        "entrypoint",
        middle(BATCH + 'entrypoint = ¶["sort", "{batch}"]', command='image = "example/sort:1"'),
        "is put into a command only",
    ),
    case(
        "param",
        middle('contract = ¶"batch"\nparams = { batch = "x" }', command='use = "p"'),
        'has a param "batch"',
        files={"p/processor.toml": 'command = ["cat", "{batch}"]\n[params.batch]\ntype = "string"\n'},
    ),
]


@parametrized(ERRORS)
def test_what_is_wrong(each: Case, tmp_path: Path) -> None:
    if each.id == "pipe":
        each = case(each.id, each.text.replace('contract = "batch"', '¶contract = "batch"'), *each.messages)
    check_case(each, tmp_path, "error")


def test_what_is_good(tmp_path: Path) -> None:
    keys = 'batch = { messages = 7, bytes = "1KiB", wait = "0s" }\nmax_outputs = "2MiB"\nstall = "5m"\nreplicas = 2'
    loaded = load_case(middle(BATCH + keys), tmp_path)
    assert loaded.warnings == ()
    processor = loaded.pipeline.processors["m"]
    assert processor.batch == BatchPolicy(7, 1024, 0.0)
    assert (processor.max_outputs_bytes, processor.order, processor.batch_as_file) == (2 << 20, "any", False)
    plain = load_case(middle(BATCH), tmp_path).pipeline.processors["m"]
    assert (plain.batch, plain.max_outputs_bytes) == (BatchPolicy(1000, 8 << 20, 1.0), 1 << 30)


@pytest.mark.parametrize("contract", ["batch", "one-to-one"])
def test_braces_mean_the_file_of_a_batch_under_batch_only(tmp_path: Path, contract: str) -> None:
    text = middle(f'contract = "{contract}"', command="""command = ["sort", "-o{batch}"]""")
    processor = load_case(text, tmp_path).pipeline.processors["m"]
    assert processor.command[1] == "-o{batch}"
    assert processor.batch_as_file is (contract == "batch")


def test_stdout_of_a_sink_is_its_log(tmp_path: Path) -> None:
    assert load_case(SINK + 'reads = "w"', tmp_path).pipeline.processors["b"].log_stdout


def test_a_weaker_channel_behind_a_durable_one_is_warned_of(tmp_path: Path) -> None:
    loaded = load_case(middle(BATCH) + '[channels.w]\nkind = "durable"\n', tmp_path)
    assert [warning for warning in loaded.warnings if "outlives more" in warning.message]


def test_the_table_is_merged_with_that_of_its_template(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "processor.toml").write_text(
        f'command = ["cat"]\n{BATCH}batch = {{ messages = 5, wait = "3s" }}\n'
    )
    text = middle("batch = { messages = 9 }", command='use = "p"')
    assert load_case(text, tmp_path).pipeline.processors["m"].batch == BatchPolicy(9, 8 << 20, 3.0)
