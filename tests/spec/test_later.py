"""What a later version brings is refused by name."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import Case, case, channel, check_case, parametrized

LATER = [
    *[
        case(
            f"kind {kind}",
            channel(f'kind = ¶"{kind}"'),
            f'not supported yet: "{kind}" / channels of kind "memory", "pipe", "durable", "file", "tcp"',
        )
        for kind in ("redis", "kafka")
    ],
    case("channel topic", channel('¶topic = "t"'), "channels.x.topic: not supported yet"),
]


@parametrized(LATER)
def test_what_comes_later_is_refused_by_name(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")
