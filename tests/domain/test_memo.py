"""What is kept for an object is gone with it, and never given out for another one."""

import gc
from datetime import timedelta

from orchestrator.domain.gate import verdict
from orchestrator.domain.memo import Memo
from orchestrator.domain.plan import Plan, step_digest
from tests.domain.walker import START, Walker
from tests.support.plans import five_stages


class _Thing:
    pass


def test_it_is_kept_while_the_object_lives():
    memo: Memo[_Thing, str] = Memo()
    one, other = _Thing(), _Thing()
    assert memo.get(one) is None
    assert memo.keep(one, "first") == "first"
    assert memo.keep(one, "second") == "second"
    assert memo.get(one) == "second"
    assert memo.get(other) is None
    del one
    gc.collect()
    assert len(memo) == 0


def test_objects_that_take_the_place_of_others_have_nothing_of_theirs():
    memo: Memo[_Thing, int] = Memo()
    for number in range(200):  # each is likely to have the id of the one before
        thing = _Thing()
        assert memo.get(thing) is None
        memo.keep(thing, number)
    del thing
    assert len(memo) == 0


def test_another_instant_another_step_and_another_state_are_judged_anew():
    walker = Walker(Plan.model_validate(five_stages()))
    state, step = walker.state, walker.state.next_step
    assert step is not None
    here = verdict(state, step, START)
    assert verdict(state, step, START) is here, "asked twice in one instant, it is judged once"
    assert verdict(state, step, START + timedelta(days=1)) is not here
    other = walker.plan.steps[-1]
    assert verdict(state, other, START).step == other.name
    assert verdict(state, step, START) == here
    held = state.model_copy(update={"waived": ["monitor"]})
    assert verdict(held, step, START).etag != here.etag


def test_a_changed_copy_of_a_step_has_a_digest_of_its_own():
    step = Plan.model_validate(five_stages()).steps[0]
    before = step_digest(step)
    changed = step.model_copy(update={"name": "elsewhere"})
    assert step_digest(changed) not in {before, None}
    assert step_digest(step) == before == step_digest(step.model_copy())
