"""Codecs are found by name: the built-in ones quickly, those of other packages by entry point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.codec.base import Codec
from runner.codec.registry import ENTRY_POINT_GROUP, codec_named
from runner.errors import RunnerError


@pytest.mark.parametrize("name", ["lines", "null", "length-prefixed", "raw"])
def test_built_in_codecs_are_found_and_shared(name: str) -> None:
    codec = codec_named(name)
    assert isinstance(codec, Codec)
    assert codec.name == name
    assert codec_named(name) is codec


def test_built_in_codecs_need_no_package_metadata() -> None:
    script = """if True:
        import sys
        sys.modules["importlib.metadata"] = None  # makes its import fail
        from runner.codec.registry import codec_named
        for name in ("lines", "null", "length-prefixed", "raw"):
            codec_named(name)
    """
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_an_unknown_codec_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(RunnerError, match='no codec "lnes"') as caught:
        codec_named("lnes")
    assert '"length-prefixed", "lines", "null", "raw"' in str(caught.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with one good codec and three bad ones."""
    (tmp_path / "tabbed_codec.py").write_text(
        "from runner.codec.delimited import DelimitedCodec\n"
        'TABBED = DelimitedCodec("tabbed", b"\\t", "a tab")\n'
        'OTHER = DelimitedCodec("another", b"\\t", "a tab")\n'
        "NO_CODEC = 1\n"
    )
    metadata = tmp_path / "tabbed_codec-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tabbed-codec\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "tabbed = tabbed_codec:TABBED\n"
        "renamed = tabbed_codec:OTHER\n"
        "number = tabbed_codec:NO_CODEC\n"
        "broken = tabbed_codec_that_is_not_there:X\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tabbed_codec", raising=False)


@pytest.mark.usefixtures("package")
def test_a_codec_of_another_package_is_used_like_a_built_in_one() -> None:
    codec = codec_named("tabbed")
    assert codec.split(codec.decoder(10).feed(b"a\tb\tc")) == [b"a\t", b"b\t"]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("broken", "cannot be loaded from tabbed_codec_that_is_not_there:X"),
        ("renamed", "tabbed_codec:OTHER is not a codec"),
        ("number", "tabbed_codec:NO_CODEC is not a codec"),
        ("tabed", '"tabbed"'),
    ],
)
def test_a_bad_entry_point_is_an_error_that_names_it(name: str, what: str) -> None:
    with pytest.raises(RunnerError) as caught:
        codec_named(name)
    assert what in str(caught.value)
