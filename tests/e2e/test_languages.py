"""Unmodified programs in many languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.children.build import LANGUAGES, Programs, script, sink, source
from tests.children.messages import CODECS
from tests.e2e.connector import Connector, chain
from tests.e2e.test_contracts import one_to_one
from tests.e2e.test_ends import numbers


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("contract", ["stream", "one-to-one"])
def test_each_language(connector: Connector, tmp_path: Path, programs: Programs, language: str, contract: str) -> None:
    middle = {"command": programs.echo(language), "contract": contract}
    result = connector.run(chain(source=source(2000, "--form", "json"), middle=middle, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 2001))
    assert result.account("c1", "middle") == {"written": 2000, "acknowledged": 2000}


def test_all_of_them_in_one_pipeline(connector: Connector, tmp_path: Path, programs: Programs) -> None:
    middles = {language: one_to_one(programs.echo(language)) for language in LANGUAGES}
    result = connector.run(chain(source=source(2000, "--form", "json"), **middles, sink=sink(tmp_path / "out")))
    result.completed()
    assert numbers(tmp_path / "out") == list(range(1, 2001))
    for index, language in enumerate(LANGUAGES, 1):
        assert result.account(f"c{index}", language) == {"written": 2000, "acknowledged": 2000}


def test_programs_that_buffer_as_their_language_does(connector: Connector, tmp_path: Path, programs: Programs) -> None:
    pipeline = chain(
        source=source(20_000, "--form", "json"),
        python=one_to_one(script("echo_lines")),
        awk=one_to_one([programs.tool("awk"), "{ print }"]),
        jq=one_to_one([programs.tool("jq"), "-c", "."]),
        sed=one_to_one([programs.tool("sed"), "s/x/x/"]),
        sink=sink(tmp_path / "out"),
    )
    connector.run(pipeline).completed()
    assert numbers(tmp_path / "out") == list(range(1, 20_001))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("language", ["c", "python", "cat"])
def test_codecs(connector: Connector, tmp_path: Path, programs: Programs, language: str, codec: str) -> None:
    command = programs.echo(language)
    middle = one_to_one(command if language == "cat" else [*command, codec], codec=codec)
    pipeline = chain(
        source={"command": source(5000, "--codec", codec), "codec": codec},
        middle=middle,
        sink={"command": sink(tmp_path / "out"), "codec": codec},
    )
    result = connector.run(pipeline)
    result.completed()
    assert numbers(tmp_path / "out", codec) == list(range(1, 5001))
    assert result.account("c1", "middle") == {"written": 5000, "acknowledged": 5000}
