"""What every change of the state is, for the modules that say what an event changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.state import ReleaseState

#: The fields of the state that an event changes, with their new values.
Change = dict[str, Any]
#: What each kind of event changes.
Changes = dict[type[ev.Event], Callable[[ReleaseState, Any], Change]]
