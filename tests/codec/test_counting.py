"""Counting a byte: with and without the library it is the same number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.codec import counting


@given(st.binary(max_size=300), st.integers(1, 400), st.sampled_from([b"\n", b"\0"]))
def test_both_ways_count_alike(data: bytes, times: int, delimiter: bytes) -> None:
    many = data * times
    assert counting.count(many, delimiter) == counting.count_in_python(many, delimiter) == many.count(delimiter)
    view = memoryview(b"\n" + many + b"\0")[1:-1]
    assert counting.count(view, delimiter) == counting.count_in_python(view, delimiter) == many.count(delimiter)


def test_the_library_is_in_use_where_it_was_built() -> None:
    assert (counting.count is not counting.count_in_python) == counting.LIBRARY.exists()
