"""`schema` of a channel: the file is there, and holds a JSON Schema that can be worked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.spec.channel_document import ChannelDocument
from runner.spec.findings import Scope, show

if TYPE_CHECKING:
    import jsonschema_rs

_MOST_BYTES = 4 << 20


def validator_of(schema: Any) -> jsonschema_rs.Validator:
    """What says whether a value fits `schema`. Raises ValueError, TypeError or ReferencingError for what is none."""
    import jsonschema_rs

    return jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)


def _fetch_nothing(_uri: str) -> Any:
    raise ValueError("it is not in this file, and nothing is fetched")


def schema_of(scope: Scope, folder: Path, document: ChannelDocument) -> str | None:
    """The JSON Schema of a channel, as JSON; None: it has none, or it is wrong and the finding says so."""
    if not isinstance(document.schema, str):
        return None
    if document.kind == "pipe":
        scope.error(("schema",), "nobody sees what goes through a pipe channel", 'write kind = "memory"', at="key")
        return None
    try:
        with (folder / document.schema).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else "no name of a file"
        scope.error(("schema",), f"the file {show(document.schema)} cannot be read: {reason.lower()}")
        return None
    wrong = "larger than 4 MiB" if len(text) > _MOST_BYTES else None
    schema: Any = None
    try:
        schema = json.loads(text) if wrong is None else None
    except (ValueError, RecursionError) as error:
        wrong = f"no JSON: {error}"
    wrong = wrong or _wrong(schema)
    if wrong is not None:
        remedy = "all of a schema is in its file: write what it refers to under $defs"
        scope.error(("schema",), f"the file {show(document.schema)} is {wrong}", remedy)
        return None
    return json.dumps(schema)


def _wrong(schema: Any) -> str | None:
    """Why `schema` is no JSON Schema; None when it is one."""
    import jsonschema_rs

    try:
        validator_of(schema)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        return "no JSON Schema: " + str(error).partition("\n")[0][:200]
    return None
