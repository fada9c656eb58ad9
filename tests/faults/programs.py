"""The programs that are killed, by language and codec."""

from __future__ import annotations

from dataclasses import dataclass

from tests.children.build import Programs, script


@dataclass(frozen=True)
class Victim:
    """A one-to-one program, the codec it speaks, and the form of message it wants."""

    language: str
    codec: str = "lines"
    form: str = "number"

    def command(self, programs: Programs) -> list[str]:
        """What is run (and found again by)."""
        if self.language == "python-buffered":
            return script("echo_lines")
        if self.language == "awk-buffered":
            return [programs.tool("awk"), "{ print }"]
        command = programs.echo(self.language)
        return command if self.codec == "lines" or self.language == "cat" else [*command, self.codec]

    def __str__(self) -> str:
        return f"{self.language}-{self.codec}"


VICTIMS = (
    Victim("cat"),
    Victim("cat", "length-prefixed"),
    Victim("cat", "null"),
    Victim("python"),
    Victim("python", "length-prefixed"),
    Victim("python", "null"),
    Victim("node"),
    Victim("awk"),
    Victim("c"),
    Victim("c", "length-prefixed"),
    Victim("c", "null"),
    Victim("jq", form="json"),
    Victim("go"),
    Victim("python-buffered"),
    Victim("awk-buffered"),
)
