"""One processor: from what was written to the model, with every error that needs no look at its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from runner.spec import model, scanner
from runner.spec.command import located, with_params, words_of
from runner.spec.document import (
    BatchDocument,
    InFlightDocument,
    LiveDocument,
    PoisonDocument,
    ProcessorDocument,
    ReadyDocument,
    StopDocument,
)
from runner.spec.findings import Findings, Scope, Source, listed
from runner.spec.params import given_params
from runner.spec.placement import Placement
from runner.spec.ports import Codecs, ports, with_codec
from runner.spec.presence import is_folder, is_there
from runner.spec.settings import (
    check_backoff,
    check_param_sizes,
    check_variables,
    guard_of,
    poison_policy,
    probe,
    restart_policy,
    secrets_of,
    stop_policy,
)
from runner.spec.template import Template, Templates, merged
from runner.spec.values import size_bytes
from runner.spec.visible import check_visible
from runner.spec.walk import Walked
from runner.spec.words import may_mean
from runner.units import parse_duration

_WAYS = ("command", "image", "use")


class Surroundings(Struct, frozen=True):
    """What the processors of one pipeline share: its folder, its environment, its templates, and the findings.

    `home` is where all that can are to run (None: nothing was asked). `runner` is the one whose part it is here: of the
    processors of others, nothing is looked for on this machine (None: all of it is here).
    """

    source: Source
    walked: Walked
    folder: Path
    env: Mapping[str, str]
    templates: Templates
    findings: Findings
    home: model.Home | None = None
    runner: str | None = None


class Resolved(Struct, frozen=True):
    """A processor of the model beside its table, for the checks that look at several of them.

    `written` holds the keys as they were written (the template's included), `declared` the ports that a processor.toml
    declares under "reads" and "writes".
    """

    processor: model.Processor
    scope: Scope
    written: dict[str, Any]
    declared: dict[str, dict[str, Any]]


def resolve(name: str, around: Surroundings) -> Resolved:
    """The processor `name`. After errors it is as good as it gets, and for looking at only."""
    return _Resolver(name, around).resolved()


class _Resolver:
    def __init__(self, name: str, around: Surroundings) -> None:
        self._name = name
        self._around = around
        path: scanner.Path = ("processors", name)
        written = around.walked.data["processors"][name]
        scope = Scope(around.findings, around.source, path)
        self._raw = around.source.data["processors"][name]
        self._misspelled = any(
            spoiled[:2] == path and len(spoiled) == 3 and may_mean(str(spoiled[2]), ProcessorDocument, *_WAYS)
            for spoiled in around.walked.spoiled
        )
        self._template: Template | None = None
        if "use" in written:
            self._template = around.templates.get(scope, written["use"])
        if self._template is not None:
            written, inherited = merged(written, self._template)
            scope = Scope(around.findings, around.source, path, self._template.source, inherited)
        self._scope = scope
        self._written: dict[str, Any] = written
        self._document = msgspec.convert(written, ProcessorDocument)
        self._elsewhere = around.runner not in {None, written.get("runner")}
        self._placement = Placement(self._scope, self._document, self._template, around.home)
        self._runs_in = self._directory()
        self._params = self._given_params()
        self._declared = {name: param.secret for name, param in self._template.params.items()} if self._template else {}
        self._search_path: str | None = None

    def resolved(self) -> Resolved:
        self._check_way()
        env, secrets = self._variables()
        self._search_path = {**self._around.env, **env, **secrets}.get("PATH")
        command, entrypoint = self._own_command(), self._entrypoint()
        mounts = () if self._elsewhere else self._placement.mounts(self._folder_of)
        if not self._elsewhere:
            self._check_known(command, entrypoint)
            self._check_visible(command, mounts)
        processor = self._model(command, entrypoint, mounts, env, secrets)
        declared = self._template.ports if self._template is not None else {}
        return Resolved(processor, self._scope, self._written, declared)

    def _model(
        self,
        command: tuple[str, ...] | None,
        entrypoint: tuple[str, ...] | None,
        mounts: tuple[model.Mount, ...],
        env: dict[str, str],
        secrets: dict[str, str],
    ) -> model.Processor:
        document, place = self._document, self._placement
        reads, writes, codecs = self._ports()
        contract = model.Contract(document.contract)
        return model.Processor(
            name=self._name,
            command=command if command is not None else (self._name,),
            directory=self._runs_in,
            home=place.home,
            image=place.image,
            entrypoint=entrypoint,
            pull=document.pull,
            build=place.build,
            template=self._template.folder if self._template is not None else None,
            trust=model.Trust(document.trust),
            network=place.network(),
            mounts=mounts,
            runner=None if document.runner is UNSET else document.runner,
            reads=reads,
            writes=writes,
            stdout_codec=codecs.of("writes", "stdout"),
            contract=contract,
            resume=model.Resume(document.resume),
            in_flight=self._in_flight(),
            batch=self._batch(),
            max_outputs_bytes=size_bytes(document.max_outputs if document.max_outputs is not UNSET else "1GiB"),
            replicas=document.replicas,
            order=self._order(contract),
            max_message_bytes=size_bytes(document.max_message),
            guard=guard_of(self._scope, document.guard),
            bridge=document.bridge,
            end=document.end if document.end is not UNSET else "signal",
            restart=self._restart(is_source=not reads),
            stop=stop_policy(document.stop if document.stop is not UNSET else StopDocument()),
            ready=self._probe("ready", document.ready),
            live=self._probe("live", document.live),
            poison=poison_policy(document.poison if document.poison is not UNSET else PoisonDocument()),
            stall_s=parse_duration(document.stall) if isinstance(document.stall, str) else None,
            continue_on_error=document.continue_on_error,
            resources=place.resources(),
            env=env,
            params=self._params,
            secrets=secrets,
            secret_params=frozenset(name for name, secret in self._declared.items() if secret),
        )

    def _variables(self) -> tuple[dict[str, str], dict[str, str]]:
        """What goes into its environment: (its variables, its secrets); with its params they have to fit."""
        document = self._document
        env = dict(document.env) if document.env is not UNSET else {}
        written = dict(document.secrets) if document.secrets is not UNSET and not self._elsewhere else {}
        secrets = secrets_of(self._scope, written, self._around.env, self._folder_of)
        check_variables(self._scope, env, secrets)
        check_param_sizes(self._scope, self._params)
        return env, secrets

    def _check_known(self, command: tuple[str, ...] | None, entrypoint: tuple[str, ...] | None) -> None:
        """A container that others start needs its words written: nobody looks at its image here."""
        if self._placement.attached and command == () and not entrypoint:
            self._scope.error(
                (),
                "what runs in its container is not known here: a sidecar does not look at images",
                'write command = ["…"], with the words of its entrypoint',
                at="key",
            )

    def _check_visible(self, command: tuple[str, ...] | None, mounts: tuple[model.Mount, ...]) -> None:
        """Whether a command that is walled off will see its own program."""
        if command is not None and self._runs_in is not None and self._placement.walled_command:
            check_visible(
                self._scope,
                ("command",),
                command,
                directory=self._runs_in,
                search_path=self._search_path,
                template=self._template.folder if self._template is not None else None,
                mounts=mounts,
            )

    def _restart(self, *, is_source: bool) -> model.RestartPolicy:
        """Its policy; a source that cannot be resumed is not restarted."""
        document = self._document
        restart = restart_policy(document.restart)
        check_backoff(self._scope, restart)
        if is_source and document.resume == "none" and "restart" not in self._written:
            return model.RestartPolicy("never", restart.backoff, restart.limit, restart.reset_after_s)
        return restart

    def _probe(self, name: str, document: ReadyDocument | LiveDocument | UnsetType) -> model.Check | None:
        """`ready` or `live`; None where it was not written, or has errors (that the walk may have told already)."""
        template = self._template
        told = self._around.walked.is_spoiled("processors", self._name, name)
        if document is UNSET or told or (template is not None and template.walked.is_spoiled(name)):
            return None
        folder_of = self._inside if self._placement.contained else self._folder_of
        return probe(self._scope, name, document, folder_of, self._command)

    def _check_way(self) -> None:
        """Exactly one of command, image and use; but an image may have a command."""
        ways = [way for way in _WAYS if way in self._raw]
        if len(ways) > 1 and ways != ["command", "image"]:
            self._scope.error((), f"has {listed(ways, 'and')}", f"write exactly one of {listed(list(_WAYS))}", at="key")
        elif not ways and not self._misspelled:
            self._scope.error((), "says not what to run", f"write exactly one of {listed(list(_WAYS))}", at="key")
        if "params" in self._raw and "use" not in self._raw:
            self._scope.error(("params",), "params go with use", "put values into command, or use a folder", at="key")

        for key in ("entrypoint", "pull"):
            if key in self._raw and "image" not in self._raw and "use" not in self._raw:
                self._scope.error((key,), f"{key} goes with image", "leave it out, or write image", at="key")

    def _entrypoint(self) -> tuple[str, ...] | None:
        """What an image starts instead of its own; none of it stands for that of the image."""
        written = self._document.entrypoint
        if not self._placement.contained or written is UNSET:
            return None
        words = self._words(("entrypoint",), written)
        return None if words is None else tuple(words)

    def _own_command(self) -> tuple[str, ...] | None:
        """The words of its command; () for that of the image, None after an error."""
        if self._placement.command_is_the_images:
            return ()
        written = self._document.command
        return None if written is UNSET else self._command(("command",), written)

    def _given_params(self) -> dict[str, object]:
        template, document = self._template, self._document
        if template is None:
            return {}
        return given_params(
            self._scope,
            document.params if document.params is not UNSET else {},
            template.params,
            template.defaults,
            folder=self._around.folder,
            complete=not template.walked.is_spoiled("params"),
        )

    def _command(self, path: scanner.Path, written: str | list[str]) -> tuple[str, ...] | None:
        """The words of a command, its program looked for where it is one of this machine; None after an error."""
        words = self._words(path, written)
        if words is None:
            return None
        if self._runs_in is None or self._placement.contained or self._elsewhere:
            return tuple(words)
        return located(self._scope, path, words, self._runs_in, self._search_path)

    def _words(self, path: scanner.Path, written: str | list[str]) -> list[str] | None:
        """The words of a command with params put in; None after an error."""
        words = words_of(self._scope, path, written)
        return None if words is None else with_params(self._scope, path, words, self._declared, self._params)

    def _folder_of(self, path: scanner.Path) -> Path:
        """Where the paths in `path` start from: the folder of the file it is written in."""
        source, _ = self._scope.origin(path)
        if self._template is not None and source is self._template.source:
            return self._template.folder
        return self._around.folder

    def _inside(self, _path: scanner.Path) -> Path:
        """Where the paths of an image's checks start from: where its program runs."""
        return Path()

    def _directory(self) -> Path | None:
        """Where the program runs; None after an error, and for that of an image."""
        written = self._document.directory
        if self._placement.contained:
            return self._placement.directory()
        if written is UNSET:
            return self._template.folder if self._template is not None else self._around.folder
        directory = self._folder_of(("directory",)) / written
        if self._elsewhere or is_folder(directory):
            return directory
        state = "is no folder" if is_there(directory) else "is not there"
        self._scope.error(("directory",), f"{directory} {state}", "a relative path starts from the folder of its file")
        return None

    def _ports(self) -> tuple[tuple[model.Port, ...], tuple[model.Port, ...], Codecs]:
        template, own = self._template, self._around.walked.data["processors"][self._name]
        codecs = Codecs(
            self._scope,
            own.get("codec"),
            template.keys.get("codec") if template is not None else None,
            template.codecs if template is not None else {},
        )
        declared: dict[str, Any] = template.ports if template is not None else {}
        reads, writes = (
            ports(self._scope, side, self._written, declared.get(side), codecs) for side in ("reads", "writes")
        )
        if self._document.contract == "one-to-one":
            codecs.of("writes", "stdout")
        if not self._around.walked.is_spoiled("processors", self._name):
            codecs.check()
        if self._document.bridge == "zeromq" and self._document.contract == "stream":
            reads = with_codec(reads, "zeromq-no-empty" if self._document.end == "empty" else "zeromq")
            writes = with_codec(writes, "zeromq")
        return reads, writes, codecs

    def _in_flight(self) -> model.InFlight:
        written = self._document.in_flight
        document = written if written is not UNSET else InFlightDocument()
        return model.InFlight(size_bytes(document.bytes), document.messages if document.messages is not UNSET else None)

    def _batch(self) -> model.BatchPolicy:
        document = self._document.batch if self._document.batch is not UNSET else BatchDocument()
        return model.BatchPolicy(document.messages, size_bytes(document.bytes), parse_duration(document.wait))

    def _order(self, contract: model.Contract) -> Any:
        written = self._document.order
        if written is UNSET:
            return "keep" if contract is model.Contract.ONE_TO_ONE else "any"
        return written
