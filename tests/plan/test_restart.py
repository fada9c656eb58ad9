"""The restart policy: whether, when and why."""

from __future__ import annotations

import signal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.events import Exited
from runner.plan.restart import EX_TEMPFAIL, Death, Decision, Next, backoff_s, decide, describe
from runner.spec.model import Backoff, RestartPolicy, Resume
from runner.units import Rate

codes = st.integers(0, 255)
exits = st.one_of(
    st.builds(Exited, codes, st.none()),
    st.builds(Exited, st.none(), st.integers(1, 31)),
)
deaths = st.builds(
    Death,
    st.one_of(st.none(), exits),
    st.one_of(st.none(), st.just("not ready within 2s")),
    st.booleans(),
)
backoffs = st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda pair: Backoff(min(pair), max(pair)))
policies = st.builds(
    RestartPolicy,
    st.sampled_from(("on-failure", "always", "never")),
    backoffs,
    st.builds(Rate, st.integers(0, 8), st.floats(0.1, 1000)),
)
sources = st.one_of(st.none(), st.sampled_from(Resume))


def decided(
    policy: RestartPolicy,
    death: Death,
    *,
    source: Resume | None = None,
    failures_s: tuple[float, ...] = (),
    now_s: float = 1000.0,
    streak: int = 0,
    chance: float = 1.0,
) -> Decision:
    return decide(policy, death, source=source, failures_s=failures_s, now_s=now_s, streak=streak, chance=chance)


def died(code: int = 1) -> Death:
    return Death(Exited(code, None))


# -- rules that hold always


@given(policies, deaths, sources, st.lists(st.floats(0, 1000), max_size=9), st.integers(0, 2000), st.floats(0, 1))
def test_every_decision_has_a_cause_and_a_bounded_wait(
    policy: RestartPolicy, death: Death, source: Resume | None, failures_s: list[float], streak: int, chance: float
) -> None:
    decision = decided(policy, death, source=source, failures_s=tuple(sorted(failures_s)), streak=streak, chance=chance)
    assert death.sentence in decision.cause
    assert 0 <= decision.after_s <= policy.backoff.most_s
    if decision.next is not Next.AGAIN:
        assert decision.after_s == 0


@given(policies, exits, sources)
def test_an_end_that_we_asked_for_is_never_a_failure(
    policy: RestartPolicy, exited: Exited, source: Resume | None
) -> None:
    assert decided(policy, Death(exited, asked=True), source=source).next is Next.ENDED


@given(policies, deaths, sources)
def test_never_is_never(policy: RestartPolicy, death: Death, source: Resume | None) -> None:
    never = RestartPolicy("never", policy.backoff, policy.limit)
    assert decided(never, death, source=source).next is (Next.FAILED if death.failure else Next.ENDED)


@given(policies, deaths)
def test_a_source_with_resume_none_is_never_started_again(policy: RestartPolicy, death: Death) -> None:
    assume(not death.asked)
    decision = decided(policy, death, source=Resume.NONE)
    assert decision.next is (Next.FAILED if death.failure else Next.ENDED)


@given(policies, sources)
def test_exit_0_is_started_again_by_always_alone(policy: RestartPolicy, source: Resume | None) -> None:
    assume(source is not Resume.NONE)
    decision = decided(policy, Death(Exited(0, None)), source=source)
    assert decision.next is (Next.AGAIN if policy.when == "always" else Next.ENDED)


# -- the limit


@given(st.integers(0, 6), st.floats(1, 100), st.lists(st.floats(0, 300), max_size=12))
def test_more_deaths_than_the_limit_fail_for_good(count: int, per_s: float, ages_s: list[float]) -> None:
    policy = RestartPolicy(limit=Rate(count, per_s))
    failures_s = tuple(sorted(1000.0 - age for age in ages_s))
    recent = sum(1000.0 - at_s < per_s for at_s in failures_s) + 1
    decision = decided(policy, died(), failures_s=failures_s)
    assert decision.next is (Next.FAILED if recent > count else Next.AGAIN)
    if decision.next is Next.FAILED:
        assert f"the limit is {policy.limit}" in decision.cause


@given(policies, st.lists(st.floats(999, 1000), min_size=20, max_size=30))
def test_later_counts_for_no_limit(policy: RestartPolicy, failures_s: list[float]) -> None:
    assume(policy.when != "never")
    assert decided(policy, died(EX_TEMPFAIL), failures_s=tuple(failures_s)).next is Next.AGAIN


def test_later_is_only_what_the_program_said() -> None:
    """Exit 75 of a program that the runner had to end is no "later"."""
    assert died(75).later
    assert not Death(Exited(75, None), why="stalled").later
    assert not Death(None).later


# -- the backoff


@given(backoffs, st.integers(0, 3000))
def test_backoff_doubles_up_to_its_most(backoff: Backoff, streak: int) -> None:
    policy = RestartPolicy(backoff=backoff)
    now, after = (backoff_s(policy, number, 1.0) for number in (streak, streak + 1))
    assert now <= backoff.most_s
    assert after == pytest.approx(min(backoff.most_s, 2 * now)) or streak >= 60


@given(backoffs, st.integers(0, 70), st.floats(0, 1))
def test_jitter_is_full(backoff: Backoff, streak: int, chance: float) -> None:
    policy = RestartPolicy(backoff=backoff)
    assert backoff_s(policy, streak, 0.0) == 0
    assert backoff_s(policy, streak, chance) == pytest.approx(chance * backoff_s(policy, streak, 1.0))


def test_the_default_is_100_ms_to_30_s() -> None:
    waits = [decided(RestartPolicy(), died(), streak=streak).after_s for streak in (0, 1, 2, 8, 9, 1000)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 25.6, 30.0, 30.0])


# -- sentences


@pytest.mark.parametrize(
    ("exited", "said"),
    [
        (Exited(3, None), "exit 3"),
        (Exited(None, signal.SIGSEGV), "killed by SIGSEGV"),
        (Exited(None, 63), "killed by signal 63"),
        (Exited(None, None), "its shim died"),
        (None, "its shim died"),
    ],
)
def test_how_it_ended_in_words(exited: Exited | None, said: str) -> None:
    assert describe(exited) == said


def test_the_runner_s_reason_comes_before_the_exit() -> None:
    assert Death(Exited(None, 9), why="stalled").sentence == "stalled"


def test_a_start_that_failed_is_a_failure() -> None:
    death = Death(None, why="cannot be started")
    assert death.failure
    assert decided(RestartPolicy(), death).next is Next.AGAIN
