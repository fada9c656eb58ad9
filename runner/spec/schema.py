"""JSON Schemas (draft 2020-12) of the two files, made of the structs that the walk uses."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from runner.spec.document import PipelineDocument, ProcessorFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PUT_IN = r"(^|[^$])\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"
"""A string into which the environment puts something; what it will be is not known before."""

_PROBES = ("file", "tcp", "http", "command")
_EXACTLY_ONE = {
    "ProcessorDocument": ("command", "image", "use"),
    "ReadyDocument": ("line", *_PROBES),
    "LiveDocument": _PROBES,
}
_GOES_WITH = {("ProcessorDocument", "command"): "image"}
"""A key that does not count where the other one is there: an image may have a command."""
_AT_LEAST_ONE = {"ProcessorFile": ("command", "image")}


def _there(struct: str, key: str) -> dict[str, Any]:
    """What a table fits that has `key`."""
    other = _GOES_WITH.get((struct, key))
    return {"required": [key]} | ({} if other is None else {"not": {"required": [other]}})


def pipeline_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file."""
    return _schema(PipelineDocument, "Pipeline of the connector runner")


def processor_schema() -> dict[str, Any]:
    """The JSON Schema of a processor.toml."""
    return _schema(ProcessorFile, "Processor of the connector runner (processor.toml)")


def _schema(struct: type[Struct], title: str) -> dict[str, Any]:
    generated = msgspec.json.schema(struct, ref_template="#/$defs/{name}")
    definitions = generated["$defs"]
    for name, definition in definitions.items():
        for keys, rule in ((_EXACTLY_ONE.get(name), "oneOf"), (_AT_LEAST_ONE.get(name), "anyOf")):
            if keys:
                definition[rule] = [_there(name, key) for key in keys]
        definition["title"] = name.removesuffix("Document")
        definition["properties"] = {key: _with_names(inner) for key, inner in definition["properties"].items()}
    whole = {
        name.removesuffix("Document"): _open_for_environment(definition)
        for name, definition in definitions.items()
        if name != struct.__name__
    }
    root = _open_for_environment(definitions[struct.__name__])
    return {"$schema": DIALECT, **root, "title": title, "$defs": whole}


def _with_names(node: Any) -> Any:
    """References to definitions under their short names."""
    if isinstance(node, dict):
        return {
            key: inner.removesuffix("Document") if key == "$ref" else _with_names(inner) for key, inner in node.items()
        }
    return [_with_names(inner) for inner in node] if isinstance(node, list) else node


def _open_for_environment(node: dict[str, Any]) -> dict[str, Any]:
    """Let `${NAME}` stand wherever a value is expected."""
    opened = dict(node)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            opened[key] = _open_for_environment(node[key])
    if "anyOf" in node:
        opened["anyOf"] = [_open_for_environment(inner) for inner in node["anyOf"]]
    if "properties" in node:
        opened["properties"] = {key: _open_for_environment(inner) for key, inner in node["properties"].items()}
    if node.get("type") == "string" and "pattern" in node:
        opened["pattern"] = f"({node['pattern']})|{_PUT_IN}"
    elif "enum" in node or node.get("type") in {"integer", "number", "boolean"}:
        about: dict[str, Any] = {
            key: opened.pop(key) for key in ("title", "description", "default", "examples") if key in opened
        }
        return {**about, "anyOf": [opened, {"type": "string", "pattern": _PUT_IN}]}
    return opened
