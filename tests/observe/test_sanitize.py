import json
import sys
import unicodedata

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.observe.sanitize import cells, clip, json_safe, visible

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
any_text = st.text(st.characters(exclude_categories=()))


def is_harmless(text: str) -> bool:
    return all(
        (unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} or one in "\u200c\u200d")
        and unicodedata.bidirectional(one) not in BIDI
        for one in text
    )


@given(any_text)
@example("\x1b]0;title\x07\x9b31m\u202egnp.exe\u2066\ud800\u2028\U000e0041\x7f\r\n\t")
def test_nothing_harmful_is_shown(text: str) -> None:
    assert is_harmless(visible(text))


def test_every_character_there_is() -> None:
    shown = visible("".join(map(chr, range(sys.maxunicode + 1))))
    assert is_harmless(shown)
    shown.replace("\\u", "").encode("utf-8")


@given(st.text(st.characters(codec="utf-8")))
@example("\x1b[2J\x7f\x9b\u202e\U000e0041")
def test_json_keeps_its_meaning(text: str) -> None:
    safe = json_safe(msgspec.json.encode({"text": text}).decode())
    assert is_harmless(safe)
    assert json.loads(safe) == {"text": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 東京 \u3000\xa0", "Grüße, 東京 \u3000\xa0"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\tat Main.java", "    at Main.java"),
        ("10%\r20%\n", "10%\\r20%\\n"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("user\u202etxt", "user\\u202etxt"),
        ("\U000e0041", "\\U000e0041"),
        ("क\u200dष", "क\u200dष"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(), st.integers(0, 40))
def test_clip_keeps_the_width(text: str, width: int) -> None:
    clipped = clip(text, width)
    assert cells(clipped) <= width
    assert clipped == text or clipped == "" or clipped.endswith("…")


def test_wide_characters_take_two_cells() -> None:
    assert cells("東京") == 4
    assert clip("東京都", 4) == "東…"
