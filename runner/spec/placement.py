"""Where a processor runs and what it sees and may use there, as its keys say it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import UNSET

from runner.spec import model, scanner
from runner.spec.document import ProcessorDocument
from runner.spec.findings import Scope, show
from runner.spec.homes import Ways, choose_home
from runner.spec.mounts import mounts_of
from runner.spec.template import Template
from runner.spec.values import size_bytes


class Placement:
    """The home of one processor, and the keys that depend on it.

    `wanted` is the home that all processors were asked for; a warning says so where it cannot be.
    """

    def __init__(
        self, scope: Scope, document: ProcessorDocument, template: Template | None, wanted: model.Home | None
    ) -> None:
        self._scope = scope
        self._document = document
        self._template = template
        self.untrusted = document.trust == "untrusted"
        self.home = self._chosen(wanted)
        self.attached = self.home is model.Home.ATTACHED
        self.contained = self.attached or self.home is model.Home.CONTAINER

    def _chosen(self, wanted: model.Home | None) -> model.Home:
        document, template = self._document, self._template
        image, command = document.image is not UNSET, document.command is not UNSET
        if template is not None:
            ways = Ways(command, image=template.image is not None or command)
        else:
            ways = Ways(command and not image, image)
        network = document.network if isinstance(document.network, str) else None
        choice = choose_home(ways, untrusted=self.untrusted, network=network, wanted=wanted)
        if choice.kept is not None:
            self._scope.warning((), f"stays in its {choice.home}: {choice.kept}", at="key")
        return choice.home

    @property
    def walled_command(self) -> bool:
        """Whether it is a command that does not see this machine's files."""
        return self.untrusted and self.home is model.Home.SANDBOX

    @property
    def image(self) -> str | None:
        """The image's name; None without a container of ours, and where `build` makes it."""
        if not self.contained or self.attached:
            return None
        if self._template is not None:
            return self._template.image
        return self._document.image if isinstance(self._document.image, str) else None

    @property
    def build(self) -> model.Build | None:
        """How its image is made; None where it is not made here."""
        template = self._template
        return None if self.attached or template is None or template.image is not None else template.build

    @property
    def command_is_the_images(self) -> bool:
        """Whether its command is that of the image.

        Of a folder that gives both a command and an image, or a Dockerfile, the command is for this machine.
        """
        template = self._template
        if not self.contained:
            return False
        if template is None:
            return self._document.command is UNSET
        return template.image is not None or template.has_dockerfile

    def directory(self) -> Path | None:
        """Where the program runs in its image; None for the image's own."""
        written = self._document.directory
        if written is UNSET:
            return None
        if not written.startswith("/"):
            self._scope.error(("directory",), f"{show(written)} is no absolute path", "it is a folder of the image")
        return Path(written)

    def network(self) -> str:
        """The network, its default filled in."""
        written = self._document.network
        default = "none" if self.untrusted else "outbound" if self.contained else "host"
        if not isinstance(written, str):
            return default
        if self.contained or written in {"none", "host"}:
            return written
        if self.home is model.Home.PROCESS:
            self._scope.warning(("network",), "a bare process is not held to it: it has this machine's", at="key")
            return "host"
        self._scope.error(
            ("network",), f"a sandbox cannot have {show(written)}", 'write "none" or "host", or give it an image'
        )
        return default

    def mounts(self, folder_of: Callable[[scanner.Path], Path]) -> tuple[model.Mount, ...]:
        """What it sees of this machine's files; `folder_of` says where relative sources start from."""
        written = self._document.mounts
        if written is UNSET or self.attached:
            return ()
        return mounts_of(self._scope, written, self.home, folder_of)

    def resources(self) -> model.Resources:
        """What it may use, the defaults of an untrusted one filled in. In somebody's container that is not for us."""
        if self.attached:
            return model.Resources()
        default = model.UNTRUSTED_RESOURCES if self.untrusted else model.Resources()
        limits = self._document.resources
        if limits is UNSET:
            return default
        return model.Resources(
            memory_bytes=size_bytes(limits.memory) if limits.memory is not UNSET else default.memory_bytes,
            cpus=limits.cpus if limits.cpus is not UNSET else default.cpus,
            pids=limits.pids if limits.pids is not UNSET else default.pids,
            files=limits.files if limits.files is not UNSET else default.files,
            disk_bytes=size_bytes(limits.disk) if limits.disk is not UNSET else default.disk_bytes,
        )
