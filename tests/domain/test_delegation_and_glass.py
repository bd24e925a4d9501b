"""Delegation (signed, one role, an end, visible, never doubling anybody) and break-glass (two, a reason, a review that must be closed)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Conflict, NotPermitted, ReleaseEnded
from orchestrator.domain.gate import verdict
from orchestrator.domain.plan import Plan
from orchestrator.domain.waits import waits
from tests.domain.walker import Walker, person
from tests.support.plans import five_stages

DAY = timedelta(days=1)


@pytest.fixture
def walk() -> Walker:
    """At the gate of `query`, which asks for safety and legal."""
    made = Walker(Plan.model_validate(five_stages()))
    made.walk("demo")
    made.prepare(made.state.next_step)
    return made


def lend(walk: Walker, giver: str = "sam", to: str = "dan", role: str = "safety") -> list:
    return walk.do(cmd.Delegate, person(giver), to=to, role=role, until=walk.now + 20 * DAY)


def found(walk: Walker):
    return verdict(walk.state, walk.state.next_step, walk.now)


def test_a_delegation_shows_in_the_verdict_and_in_the_receivers_list_until_its_end(walk: Walker) -> None:
    lend(walk)
    (shown,) = found(walk).delegations
    assert (shown.person, shown.to, shown.role) == ("sam", "dan", "safety")
    assert found(walk).changes_at is not None
    assert found(walk).changes_at <= shown.until
    safety = next(c for c in found(walk).unmet if c.role == "safety")
    assert safety.who == ["dan", "sam", "sue"]
    assert any(w.what == "sign_off" and "dan" in w.people for w in waits(walk.state, walk.now))
    walk.now += 20 * DAY
    assert found(walk).delegations == []
    assert "dan" not in next(c for c in found(walk).unmet if c.role == "safety").who
    with pytest.raises(NotPermitted):
        walk.sign(walk.state.next_step, "dan", "safety")


def test_whoever_delegated_counts_once(walk: Walker) -> None:
    lend(walk)
    walk.sign(walk.state.next_step, "dan", "safety")
    with pytest.raises(Conflict, match="sam counts at this gate already, through the sign-off of dan"):
        walk.sign(walk.state.next_step, "sam", "safety")
    (view,) = found(walk).sign_offs
    assert (view.person, view.on_behalf_of, view.standing) == ("dan", "sam", "counts")


def test_a_delegate_of_somebody_who_signed_adds_nobody(walk: Walker) -> None:
    walk.sign(walk.state.next_step, "sam", "safety")
    lend(walk)
    with pytest.raises(Conflict, match="sam counts at this gate already"):
        walk.sign(walk.state.next_step, "dan", "safety")


def test_nothing_is_delegated_to_somebody_who_counts_already(walk: Walker) -> None:
    lend(walk)
    walk.sign(walk.state.next_step, "dan", "safety")
    with pytest.raises(Conflict) as refused:
        lend(walk, "lea", "dan", "legal")
    assert [reason.code for reason in refused.value.reasons] == ["counts-already"]
    with pytest.raises(Conflict) as refused:
        lend(walk, "lea", "sue", "legal")
    assert "counts-already" in [reason.code for reason in refused.value.reasons]


def test_an_amended_plan_ends_delegations(walk: Walker) -> None:
    lend(walk)
    changed = Plan.model_validate(five_stages(title="Another"))
    for name in ("sam", "lea"):
        walk.do(cmd.AmendPlan, person(name), plan=changed, reason="title")
    assert walk.state.plan_digest == changed.digest
    assert walk.state.delegations == []


def broken(walk: Walker, reason: str = "a patch has to go out") -> str:
    """The glass broken for the window of the next gate; the review's id."""
    for name in ("sam", "lea"):
        walk.do(
            cmd.BreakGlass,
            person(name),
            step=walk.state.next_step.name,
            waives=["research_window"],
            reason=reason,
        )
    return list(walk.state.reviews)[-1]


def test_glass_takes_two_people_and_one_of_them_does_not_close_its_review(walk: Walker) -> None:
    one = {"step": "query", "waives": ["research_window"], "reason": "x"}
    walk.do(cmd.BreakGlass, person("sam"), **one)
    walk.do(cmd.BreakGlass, person("sam"), **one)
    assert walk.state.waived == []
    review = broken(walk)
    assert walk.state.waived == ["research_window"]
    assert walk.state.reviews[review].people == ["lea", "sam"]
    for name in ("sam", "lea"):
        with pytest.raises(NotPermitted, match="broke the glass"):
            walk.do(cmd.CloseReview, person(name), review=review, outcome="fine")
    waiting = [wait for wait in waits(walk.state, walk.now) if wait.what == "review"]
    assert [wait.people for wait in waiting] == [["dan", "mia", "rex", "sue"]]


def test_a_review_has_to_be_closed_also_after_the_release_has_ended(walk: Walker) -> None:
    review = broken(walk)
    walk.do(
        cmd.Abort, person("mia").model_copy(update={"permissions": frozenset({"release:abort"})}), reason="x"
    )
    assert walk.state.ended
    assert [wait.reference for wait in waits(walk.state, walk.now)] == [review]
    with pytest.raises(ReleaseEnded):
        walk.do(cmd.Hold, person("mia"), reason="too late")
    walk.do(cmd.CloseReview, person("sue"), review=review, outcome="looked at")
    assert walk.state.reviews == {}
    assert waits(walk.state, walk.now) == []
    with pytest.raises(ReleaseEnded):
        walk.do(cmd.CloseReview, person("sue"), review=review, outcome="again")


def test_reviews_of_an_ended_release_are_listed_like_everything_else(walk: Walker) -> None:
    later, first = broken(walk, "z"), broken(walk, "a")
    walk.do(
        cmd.Abort, person("mia").model_copy(update={"permissions": frozenset({"release:abort"})}), reason="x"
    )
    listed = waits(walk.state, walk.now)
    assert len({wait.due for wait in listed}) == 1
    assert [wait.reference for wait in listed] == [first, later]
