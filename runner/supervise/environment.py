"""What a program finds in its environment of the pipeline that it is part of."""

from __future__ import annotations

import json
from collections.abc import Mapping

from runner.spec.command import env_word
from runner.spec.model import Processor


def environment(
    spec: Processor, *, pipeline: str, run: str, replica: int, attempt: int, written: Mapping[str, int]
) -> dict[str, str]:
    """Its own variables, secrets and params, and who it is; `written` are its messages in channels, by port."""
    env = {**spec.env, **spec.secrets}
    for name, value in spec.params.items():
        env[f"CONNECTOR_PARAM_{env_word(name)}"] = value if isinstance(value, str) else json.dumps(value)
    if spec.params:
        env["CONNECTOR_PARAMS"] = json.dumps(spec.params)
    env["CONNECTOR_PIPELINE"] = pipeline
    env["CONNECTOR_PROCESSOR"] = spec.name
    env["CONNECTOR_INSTANCE"] = str(replica)
    env["CONNECTOR_ATTEMPT"] = str(attempt)
    env["CONNECTOR_RUN"] = run
    env["CONNECTOR_WRITTEN"] = str(written.get("stdout", 0))
    for port in spec.writes:
        if port.name != "stdout":
            env[f"CONNECTOR_WRITTEN_{env_word(port.name)}"] = str(written.get(port.name, 0))
    return env
