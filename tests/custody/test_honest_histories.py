"""Custody is strict, and never in the way of an honest release: whatever the domain decides, its fold believes in full."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from activities.custody.checking import checked_fold
from activities.custody.copies import MadeCopy
from orchestrator.plans.library import get_template, template_names
from tests.domain.test_release_properties import Releases
from tests.domain.walker import Walker


@pytest.mark.parametrize("name", template_names())
def test_every_template_walked_to_its_end_is_believed(name: str) -> None:
    walk = Walker(get_template(name).plan()).walk()
    checked = checked_fold(walk.events, walk.now)
    assert checked.ignored == ()
    assert checked.state == walk.state


class Believed(Releases):
    """The random release of the domain's own tests, with custody beside it."""

    def evidence(self, kind: str, step: str, rating: str) -> Any:
        """Each document is one of its own: the same bytes are never rated better than before (custody's own rule)."""
        return super().evidence(kind, step, rating).model_copy(update={"digest": f"sha256:{self.count:064x}"})

    def teardown(self) -> None:
        """After any sequence of commands by anybody at any times."""
        made = {
            new: MadeCopy(new, of, self.state.release, "reseal", manifest, rotation=rotation)
            for new, (of, rotation, manifest) in self.resealed.items()
        }
        checked = checked_fold(self.events, max(self.now, self.state.updated_at), made=made)
        assert checked.ignored == ()
        assert checked.state == self.state
        super().teardown()


def test_any_sequence_of_honest_commands_is_believed() -> None:
    run_state_machine_as_test(
        Believed,
        settings=settings(
            max_examples=25, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
