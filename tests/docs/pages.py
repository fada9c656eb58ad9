"""The documentation as data: pages, their blocks of code, and what a comment above a block says about it.

The marks are HTML comments in the line above a block, or words behind the language in its first line:

    file: NAME              the block is that file, and stands in the folder in which the page's commands run
    program: COMMAND        the block is a program, run as a processor (`… built by: COMMAND` before that)
    fragment                TOML that is no whole file
    needs: FIXTURE          commands that need bubblewrap or an engine, and find the project's `examples`
    not run: REASON         commands that no test runs
    exits: NUMBER           commands that end with another exit status than 0
    output                  lines that the commands before it print
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SHELL = frozenset({"sh", "bash", "shell", "console"})
_FENCE = re.compile(r"^\s*```(\S*)\s*(.*)$")
_COMMENT = re.compile(r"^<!--\s*(.*?)\s*-->$")
_HEADING = re.compile(r"^#{1,6}\s+(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of code; `line` is that of its first fence."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    def marked(self, word: str) -> str | None:
        """What stands behind `word:` in the mark (empty for a word alone); None where it is not marked so."""
        if self.mark == word:
            return ""
        return self.mark.removeprefix(f"{word}:").strip() if self.mark.startswith(f"{word}:") else None


@cache
def pages() -> tuple[Path, ...]:
    """Every page of documentation."""
    found = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/**/*.md")]
    found += [*PROJECT.glob("examples/**/*.md"), *PROJECT.glob("runner/**/*.md")]
    return tuple(sorted(found))


def name_of(page: Path) -> str:
    """A page by its path in the project."""
    return page.relative_to(PROJECT).as_posix()


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of code on `page`, in order."""
    found = []
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        above = _COMMENT.match(lines[number - 1]) if number else None
        mark = opening[2] or (above[1] if above else "")
        first = number + 1
        number = next(at for at in range(first, len(lines)) if lines[at].strip() == "```")
        found.append(Block(page, first, opening[1], mark, "\n".join(lines[first:number]) + "\n"))
        number += 1
    return tuple(found)


def every_block() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


@cache
def prose(page: Path) -> str:
    """`page` without its blocks of code."""
    return re.sub(r"^\s*```.*?^\s*```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link into `page` may name, made of its headings as GitHub does."""
    words = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in _HEADING.findall(prose(page))]
    return {word.replace(" ", "-") for word in words}


def write_files(page: Path, folder: Path) -> None:
    """Put every file that `page` shows into `folder`; a processor.toml into the folder of its processor's name."""
    for block in blocks(page):
        name = block.marked("file")
        if name is None and block.language == "toml" and is_processor_file(block):
            name = f"{tomllib.loads(block.text)['name']}/processor.toml"
        if name is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(block.text)


def is_pipeline(block: Block) -> bool:
    """Whether a TOML block is a whole pipeline."""
    return re.search(r"^\[processors[.\]]", block.text, re.MULTILINE) is not None and block.marked("fragment") is None


def is_processor_file(block: Block) -> bool:
    """Whether a TOML block is a whole processor.toml."""
    head = re.split(r"^\[", block.text, maxsplit=1, flags=re.MULTILINE)[0]
    whole = all(re.search(rf"^{key}\b", head, re.MULTILINE) for key in ("name", "command"))
    return whole and not is_pipeline(block) and block.marked("fragment") is None
