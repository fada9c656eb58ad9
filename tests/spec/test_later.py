"""What a later version brings is refused by name."""

from __future__ import annotations

from pathlib import Path

from tests.spec.marked import Case, case, channel, check_case, middle, parametrized, writer

LATER = [
    case("runner", middle('¶runner = "edge"'), "not supported yet"),
    case("runners", writer("") + '[¶runners.edge]\nhost = "10.0.0.7"\n', "not supported yet"),
    *[
        case(
            f"kind {kind}",
            channel(f'kind = ¶"{kind}"'),
            f'not supported yet: "{kind}" / channels of kind "memory", "pipe", "durable" and "file"',
        )
        for kind in ("tcp", "websocket", "http", "zeromq", "nats", "redis", "kafka")
    ],
    *[
        case(f"channel {key}", channel(f"¶{key} = {value}"), f"channels.x.{key}: not supported yet")
        for key, value in {
            "listen": '"reader"',
            "peer": '"plain"',
            "address": '"a:1"',
            "url": '"u"',
            "subject": '"s"',
            "topic": '"t"',
            "stream": '"s"',
            "group": '"g"',
            "tls": "{}",
            "keys": '"k"',
            "insecure": "true",
        }.items()
    ],
]


@parametrized(LATER)
def test_what_comes_later_is_refused_by_name(each: Case, tmp_path: Path) -> None:
    check_case(each, tmp_path, "error")
