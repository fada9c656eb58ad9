"""Progress is told at its beginning, now and then, and at its end."""

from runner.events import Event, Progress, Warned
from runner.observe.progress import Now


def step(at_s: float, *, what: str = "image x", done: bool = False) -> Event:
    return Progress(at_s=at_s, what=what, doing="downloading", done=done)


def test_now_and_then() -> None:
    now = Now()
    told = [now.worth_a_line(step(tenth / 10)) for tenth in range(101)]
    assert [index / 10 for index, each in enumerate(told) if each] == [0, 5, 10]
    assert now.worth_a_line(step(10.1, what="image y"))
    assert now.worth_a_line(step(10.2, done=True))
    assert now.worth_a_line(step(10.3)), "it begins again"


def test_all_else_is_told() -> None:
    now = Now()
    assert all(now.worth_a_line(Warned(at_s=0.0, message="odd")) for _ in range(3))
