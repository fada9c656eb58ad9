"""The generated Dockerfile, and what is read out of a written one."""

from __future__ import annotations

import pytest

from runner.plan.dockerfile import Parts, bases_of, generate


def test_generated() -> None:
    parts = Parts("base:1", ("jq", "a b"), "pip install", ("requirements.txt",), ("python3", 'say "x"'))
    assert generate(parts) == (
        "FROM base:1\n"
        "USER 0:0\n"
        "WORKDIR /processor\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends jq 'a b' "
        "&& rm -rf /var/lib/apt/lists/* /var/cache/apt/*\n"
        "COPY processor/requirements.txt /processor/\n"
        "RUN pip install\n"
        "COPY processor/ /processor/\n"
        "USER 65532:65532\n"
        "ENTRYPOINT []\n"
        'CMD ["python3", "say \\"x\\""]\n'
    )


def test_what_wants_the_whole_folder_gets_it_first() -> None:
    lines = generate(Parts("base", install="npm ci")).splitlines()
    assert lines.index("COPY processor/ /processor/") < lines.index("RUN npm ci")
    assert not [line for line in lines if line.startswith("CMD")]
    assert "RUN" not in generate(Parts("base"))


@pytest.mark.parametrize(
    ("text", "args", "bases"),
    [
        ("FROM a:1\n", {}, ("a:1",)),
        ("# FROM no\nfrom --platform=linux/amd64 a AS one\nFROM b\nFROM one\nFROM ONE AS two\n", {}, ("a", "b")),
        ("FROM scratch\nFROM a\nFROM a\n", {}, ("a",)),
        ("ARG V=1\nFROM a:$V\n", {}, ("a:1",)),
        ('ARG V="1"\nFROM a:${V}\n', {"V": "2"}, ("a:2",)),
        ("ARG V\nFROM a:${V:-3}\n", {}, ("a:3",)),
        ("ARG V\nFROM a:$V\nFROM b\n", {}, ("b",)),
        ("FROM \\\n a:1\nRUN FROM x\n", {}, ("a:1",)),
        ("FROM\n", {}, ()),
    ],
)
def test_bases(text: str, args: dict[str, str], bases: tuple[str, ...]) -> None:
    assert bases_of(text, args) == bases
