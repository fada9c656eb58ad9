"""Whether messages fit the JSON Schema of a channel; those that do not are refused at their writer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.spec.json_schema import validator_of

_JSON = msgspec.json.Decoder()
_MOST_CAUSE = 300


class Screen:
    """The schema of `channel`, as JSON. `on_refused` gets the number, payload and cause of each message refused.

    The number is that of the message among all that the processor wrote on the port.
    """

    def __init__(self, channel: str, schema: str, on_refused: Callable[[int, bytes, str], None]) -> None:
        import jsonschema_rs

        self.channel = channel
        self.on_refused = on_refused
        self._validator = validator_of(_JSON.decode(schema))
        self._invalid = jsonschema_rs.ValidationError

    def wrong(self, payload: bytes) -> str | None:
        """What is wrong with the message, in one sentence; None when it fits."""
        try:
            value = _JSON.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"it is not JSON: {error}"
        except RecursionError:
            return "it is not JSON that can be checked: it is nested too deeply"
        try:
            if not self._validator.is_valid(value):
                self._validator.validate(value)
        except self._invalid as error:
            place = "".join(f"/{part}" for part in error.instance_path)
            return f"{error.message}{f', at {place}' if place else ''}"[:_MOST_CAUSE]
        except (ValueError, TypeError, OverflowError) as error:
            return f"it cannot be checked: {error}"[:_MOST_CAUSE]
        return None
