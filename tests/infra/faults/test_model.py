"""The model of a campaign: it agrees with an honest history, and names whatever is lost, doubled, altered or out of nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.faults.checks import check_acknowledged
from infra.faults.counting import Checks
from infra.faults.model import Heard, check_model
from orchestrator.contracts.messages import Outcome
from orchestrator.domain import commands as cmd
from orchestrator.domain.events import AnyEvent, ControlReported, EntryBegan, SignedOff, StepEntered
from orchestrator.domain.evolve import fold
from orchestrator.records import database
from orchestrator.records.migrate import migrate
from tests.records.story import Story, creation

Histories = tuple[Heard, list[AnyEvent]]


class Told(Story):
    """A story that keeps what it said; the release's own commands have the ids that the workflow gives them."""

    def head(self, who: cmd.Actor = cmd.SERVICE) -> dict[str, object]:
        head = super().head(who)
        if who is cmd.SERVICE:
            step, entry = self.state.next_step, self.state.entry
            assert step is not None
            seq = self.state.seq
            began = f"enter-{step.name}-{self.state.attempt}-{seq}"
            head["command_id"] = began if entry is None else f"entered-{entry.step}-{entry.attempt}"
        return head


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Histories:
    """Two steps on their way, as the workflow records them."""
    engine = database.connect(f"sqlite:///{tmp_path_factory.mktemp('records') / 'r.db'}")
    migrate(engine)
    story = Told(engine)
    commands: dict[str, cmd.AnyCommand] = {}
    say = story.say

    def saying(command: cmd.AnyCommand) -> list[AnyEvent]:
        commands[command.command_id] = command
        return say(command)

    story.say = saying  # type: ignore[method-assign,assignment]
    story.enter("inside")
    story.enter("demo")
    engine.dispose()
    events = [event for asked in story.requests for event in asked.events]
    own = {event.command_id for event in events if isinstance(event, EntryBegan | StepEntered)}
    heard = Heard(creation())
    for command_id, command in commands.items():
        if command_id not in own:
            heard.commands[command_id] = command
            kinds = [event.type for event in events if event.command_id == command_id]
            heard.outcomes[command_id] = Outcome(release="alpha", seq=1, events=kinds)
    return heard, events


def violations(heard: Heard, events: list[AnyEvent]) -> list[str]:
    checks = Checks()
    check_model(heard, events, fold(events), checks)
    assert checks.made > 1
    return checks.violations


def test_an_honest_history_is_what_the_model_makes_of_its_commands(honest: Histories) -> None:
    assert violations(*honest) == []


def _first(events: list[AnyEvent], kind: type[AnyEvent]) -> int:
    return next(place for place, event in enumerate(events) if isinstance(event, kind))


def _lost(events: list[AnyEvent]) -> list[AnyEvent]:
    place = _first(events, ControlReported)
    return events[:place] + events[place + 1 :]


def _doubled(events: list[AnyEvent]) -> list[AnyEvent]:
    place = _first(events, ControlReported)
    again = events[place].model_copy(update={"at": events[place + 1].at})
    return [*events[: place + 2], again, *events[place + 2 :]]


def _altered(events: list[AnyEvent]) -> list[AnyEvent]:
    place = _first(events, SignedOff)
    return [*events[:place], events[place].model_copy(update={"role": "legal"}), *events[place + 1 :]]


def _unasked(events: list[AnyEvent]) -> list[AnyEvent]:
    place = _first(events, ControlReported)
    made_up = events[place].model_copy(update={"command_id": "nobody:1"})
    return [*events[:place], made_up, *events[place + 1 :]]


def _too_early(events: list[AnyEvent]) -> list[AnyEvent]:
    """The second entry began before its last signature."""
    place = [n for n, event in enumerate(events) if isinstance(event, EntryBegan)][-1]
    began, signed = events[place], events[place - 1]
    return [*events[: place - 1], began.model_copy(update={"at": signed.at}), signed, *events[place + 1 :]]


@pytest.mark.parametrize("spoil", [_lost, _doubled, _altered, _unasked, _too_early])
def test_what_does_not_follow_from_the_commands_is_named(
    honest: Histories, spoil: Callable[[list[AnyEvent]], list[AnyEvent]]
) -> None:
    heard, events = honest
    assert violations(heard, spoil(events)) != []


def test_an_answer_without_its_command_is_named(honest: Histories) -> None:
    heard, _ = honest
    checks = Checks()
    command_id = next(name for name in heard.commands)
    heard = Heard(heard.create, heard.commands, {f"sam:{command_id}": heard.outcomes[command_id]})
    check_acknowledged({command_id: heard.outcomes[f"sam:{command_id}"].events}, heard, checks)
    assert checks.violations == []
    check_acknowledged({"lost-1": ["signed_off"]}, heard, checks)
    assert len(checks.violations) == 1
