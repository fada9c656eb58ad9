"""Where a processor runs, and what it sees and may use there."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest

from runner.spec.homes import Ways, choose_home
from runner.spec.load import LoadedPipeline, load_text
from runner.spec.model import OWN_HOMES, UNTRUSTED_RESOURCES, Build, Home, Mount, Processor, Trust
from tests.spec.marked import HEAD, READER, Case, case, check_case, middle, parametrized, writer

_WALL = {Home.PROCESS: 0, Home.SANDBOX: 1, Home.CONTAINER: 1}
IMAGE = 'image = "example/app:1"'


def load(text: str, folder: Path, home: Home | None = None, path: str | None = None) -> LoadedPipeline:
    return load_text(text, folder=folder, env={"PATH": path or os.environ["PATH"]}, home=home)


def middle_of(keys: str, folder: Path, *, command: str = 'command = ["cat"]', home: Home | None = None) -> Processor:
    return load(middle(keys, command=command), folder, home).pipeline.processors["m"]


def test_no_home_has_a_thinner_wall_than_asked_for() -> None:
    every = product((True, False), (True, False), (True, False), (None, "none", "host"), (None, *OWN_HOMES))
    for command, image, untrusted, network, wanted in every:
        if not command and not image:
            continue
        choice = choose_home(Ways(command, image), untrusted=untrusted, network=network, wanted=wanted)
        if untrusted or network == "none":
            assert _WALL[choice.home] > 0
        if choice.home is not Home.CONTAINER:
            assert command
        assert (choice.kept is None) == (wanted in {None, choice.home})


@pytest.mark.parametrize(
    ("keys", "command", "home"),
    [
        ("", 'command = ["cat"]', Home.PROCESS),
        ('trust = "untrusted"', 'command = ["cat"]', Home.SANDBOX),
        ('network = "none"', 'command = ["cat"]', Home.SANDBOX),
        ("", IMAGE, Home.CONTAINER),
        ('trust = "untrusted"', IMAGE, Home.CONTAINER),
    ],
)
def test_by_itself(keys: str, command: str, home: Home, tmp_path: Path) -> None:
    assert middle_of(keys, tmp_path, command=command).home is home


def test_moved(tmp_path: Path) -> None:
    moved = load(middle("", command=IMAGE), tmp_path, Home.SANDBOX)
    assert [each.home for each in moved.pipeline.processors.values()] == [Home.SANDBOX, Home.CONTAINER, Home.SANDBOX]
    assert [problem.message for problem in moved.warnings] == [
        "stays in its container: an image runs in a container only"
    ]
    kept = load(middle('trust = "untrusted"'), tmp_path, Home.PROCESS)
    assert kept.pipeline.processors["m"].home is Home.SANDBOX
    assert [problem.message for problem in kept.warnings] == ["stays in its sandbox: it is untrusted"]


def test_a_folder_has_one_way_per_home(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    (folder / "run.sh").write_text("#!/bin/sh\ncat\n")
    (folder / "run.sh").chmod(0o755)
    text = middle("", command='use = "it"')

    (folder / "processor.toml").write_text('command = ["./run.sh"]\n')
    bare = load(text, tmp_path).pipeline.processors["m"]
    assert (bare.home, bare.command, bare.directory) == (Home.PROCESS, (str(folder / "run.sh"),), folder)
    built = load(text, tmp_path, Home.CONTAINER).pipeline.processors["m"]
    assert (built.home, built.image, built.command) == (Home.CONTAINER, None, ("./run.sh",))
    assert (built.directory, built.build, built.template) == (None, Build(folder), folder)

    (folder / "processor.toml").write_text('command = ["./run.sh"]\nimage = "example/it:1"\n')
    assert load(text, tmp_path).pipeline.processors["m"].image is None
    image = load(text, tmp_path, Home.CONTAINER).pipeline.processors["m"]
    assert (image.image, image.command, image.build) == ("example/it:1", (), None)

    (folder / "processor.toml").write_text('command = ["./run.sh"]\n[build]\ndockerfile = "processor.toml"\n')
    own = load(text, tmp_path, Home.CONTAINER).pipeline.processors["m"]
    assert (own.command, own.build) == ((), Build(folder, folder / "processor.toml"))


def test_an_image_has_its_own_of_everything(tmp_path: Path) -> None:
    plain = middle_of("", tmp_path, command=IMAGE)
    assert (plain.image, plain.command, plain.entrypoint, plain.directory) == ("example/app:1", (), None, None)
    assert (plain.network, plain.pull, plain.trust) == ("outbound", "missing", Trust.TRUSTED)
    keys = """command = "app --flag"
entrypoint = ["/tini", "--"]
directory = "/srv"
pull = "never"
network = "mine"
ready = { file = "up" }
live = { file = "/run/up" }"""
    given = middle_of(keys, tmp_path, command=IMAGE)
    assert (given.command, given.entrypoint) == (("app", "--flag"), ("/tini", "--"))
    assert (given.directory, given.pull, given.network) == (Path("/srv"), "never", "mine")
    assert given.ready is not None
    assert given.live is not None
    assert (given.ready.value, given.live.value) == ("up", "/run/up")


def test_what_an_untrusted_processor_gets(tmp_path: Path) -> None:
    processor = middle_of('trust = "untrusted"\nresources = { memory = "1GiB" }', tmp_path)
    assert processor.network == "none"
    assert processor.resources.memory_bytes == 1 << 30
    assert processor.resources.cpus == UNTRUSTED_RESOURCES.cpus
    assert None not in {getattr(processor.resources, name) for name in processor.resources.__struct_fields__}


def test_mounts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    keys = 'trust = "untrusted"\nmounts = ["data", "./data:/in:ro", "data:/out:rw", "/etc/passwd:rw"]'
    data = tmp_path / "data"
    assert middle_of(keys, tmp_path).mounts == (
        Mount(data, str(data)),
        Mount(data, "/in"),
        Mount(data, "/out", writable=True),
        Mount(Path("/etc/passwd"), "/etc/passwd", writable=True),
    )


def test_the_program_of_an_untrusted_command_is_visible(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("")
    (venv / "bin" / "tool").symlink_to("/usr/bin/env")
    text = middle('trust = "untrusted"\n¶', command='command = ["tool"]')
    path = f"{venv}/bin:{os.environ['PATH']}"
    good = load(text.replace("¶", f'mounts = ["{venv}"]'), tmp_path, path=path)
    assert good.pipeline.processors["m"].command == ("tool",)
    with pytest.raises(Exception, match=rf'add mounts = \["{venv}"\]'):
        load(text.replace("¶", ""), tmp_path, path=path)


def test_one_in_usr_is_taken_before_one_that_is_not_visible(tmp_path: Path) -> None:
    (tmp_path / "cat").symlink_to("/usr/bin/cat")
    assert load(middle('trust = "untrusted"'), tmp_path, path=f"{tmp_path}:/usr/bin:/bin").warnings == ()


def untrusted(keys: str) -> str:
    return middle(f'trust = "untrusted"\n{keys}')


ERRORS = [
    case(
        "image and use",
        middle(f'{IMAGE}\nuse = ¶"x"', command="").replace("[processors.m]", "[processors.¶m]"),
        "has image and use",
        "is not there",
    ),
    case("entrypoint", middle('¶entrypoint = "x"'), "entrypoint goes with image"),
    case("pull", middle('¶pull = "never"'), "pull goes with image"),
    case("bad image", HEAD + '[processors.a]\nimage = ¶"a b"\nwrites = "x"\n' + READER, "an image is named"),
    case("directory", middle('directory = ¶"x"', command=IMAGE), "no absolute path"),
    case("network of a sandbox", untrusted('network = ¶"outbound"'), 'a sandbox cannot have "outbound"'),
    case("network", untrusted('network = ¶"a b"'), 'a network is "none", "outbound", "host"'),
    case("mount is not there", untrusted('mounts = [¶"gone"]'), "gone is not there"),
    case("mount of nothing", untrusted('mounts = [¶":/x"]'), "is no mount"),
    case("mount mode", untrusted('mounts = [¶"a:/x:rx"]'), "is no mount"),
    case("relative target", untrusted('mounts = [¶"/etc:x"]'), "no absolute path below /"),
    case("target above", untrusted('mounts = [¶"/etc:/x/../.."]'), "no absolute path below /"),
    case("target of ours", untrusted('mounts = [¶"/etc:/.connector/run"]'), "the runner's own"),
    case("twice", untrusted('mounts = ["/etc:/x", ¶"/usr:/x"]'), "mounted twice"),
    case("bare target", middle('mounts = [¶"/etc:/x"]'), "sees /etc where it is"),
    case(
        "engine",
        untrusted('mounts = [¶"docker.sock:/x"]'),
        "the engine's socket is never mounted",
        files={"docker.sock": ""},
    ),
    case("trust", middle('trust = ¶"none"'), 'expected "trusted" or "untrusted"'),
    case("privileged", writer("¶privileged = true"), "no processor gets rights over this machine"),
]


@parametrized(ERRORS)
def test_errors(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")


WARNINGS = [
    case("bare network", middle('¶network = "outbound"'), "a bare process is not held to it"),
    case(
        "file",
        middle('trust = "untrusted"', command='command = ¶["cat", "x.py"]'),
        '"x.py" names a file that is not visible',
        files={"x.py": ""},
    ),
]


@parametrized(WARNINGS)
def test_warnings(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "warning")
