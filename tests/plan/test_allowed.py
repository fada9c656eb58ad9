"""What an untrusted processor is allowed is listed, and what is more than the profile stands out."""

from pathlib import Path

from runner.plan.allowed import allowed, sentence, untrusted
from runner.spec.load import load_text
from tests.spec.marked import ENV, middle


def test_the_profile_and_what_is_beyond_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    keys = """trust = "untrusted"
network = "host"
mounts = ["data", "data:/out:rw"]
resources = { memory = "1GiB", pids = 3 }
env = { LANG = "C" }
secrets = { KEY = "env:SET" }"""
    pipeline = load_text(middle(keys), folder=tmp_path, env=ENV).pipeline
    assert list(untrusted(pipeline)) == ["m"]
    what = allowed(pipeline.processors["m"])
    assert (what.home, what.network) == ("sandbox", "host")
    assert what.sees == (f"{tmp_path}/data", f"{tmp_path}/data at /out (rw)")
    assert what.loosened == (
        "network host",
        f"mount {tmp_path}/data",
        f"mount {tmp_path}/data at /out (rw)",
        "memory 1.0 GiB instead of 512 MiB",
        "env LANG",
        "secret KEY",
    )
    assert what.resources == {"memory": "1.0 GiB", "cpus": "0.5", "pids": "3", "files": "256", "disk": "64 MiB"}
    assert "value" not in sentence("m", what), "a secret's value is never shown"


def test_nothing_beyond_it(tmp_path: Path) -> None:
    pipeline = load_text(middle('trust = "untrusted"'), folder=tmp_path, env=ENV).pipeline
    what = allowed(pipeline.processors["m"])
    assert what.loosened == ()
    assert sentence("m", what) == (
        "m is untrusted, in a sandbox: network none, sees no files of this machine; "
        "memory 512 MiB, cpus 0.5, pids 64, files 256, disk 64 MiB"
    )
