"""Somebody with write access to everything but custody's memory and key: the database, the log's trees, the queue.

What they write is consistent: forged events get leaves and read models, a rewritten log gets new hashes, nodes and head.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from activities.custody.base import Asked
from orchestrator.domain import events as ev
from orchestrator.domain.commands import Hold
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.errors import Reason, SluiceError
from orchestrator.domain.evolve import evolve
from orchestrator.domain.plan import step_digest
from orchestrator.domain.values import canonical
from orchestrator.records import audit
from orchestrator.records.database import reading, writing
from orchestrator.records.releases import Append, append
from orchestrator.trust.audit import VerifiedLog, verify_export
from orchestrator.trust.merkle import CompactTree
from tests.custody.world import RELEASE, World
from tests.support.plans import MANAGER
from tests.support.postgres import run


class Intruder:
    """Acts on a world from behind."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.unwraps = world, 0
        provider = world.provider
        assert provider is not None
        honest = provider.unwrap

        def counted(*given: Any) -> bytes:
            self.unwraps += 1
            return honest(*given)

        monkeypatch.setattr(provider, "unwrap", counted)

    # --- writing -----------------------------------------------------------------------------------------------------

    def sql(self, statement: str, **values: Any) -> None:
        with self.world.engine.begin() as connection:
            connection.execute(text(statement), values)

    def head(self, by: str) -> dict[str, Any]:
        """The head of a forged event, now."""
        self.world.said += 1
        state = self.world.state
        return {
            "at": max(self.world.clock(), state.updated_at),
            "by": by,
            "command_id": f"f-{self.world.said}",
        }

    def forge(self, *events: ev.AnyEvent, release: str = RELEASE) -> None:
        """Append events that nobody decided, with everything that belongs to them."""
        state = self.world.states[release]
        command = events[0].command_id
        asked = Append(release, state.seq + 1, events, command, "hold", "sha256:" + "0" * 64, MANAGER.id)
        with writing(self.world.engine) as session:
            assert not append(session, asked, self.world.clock()).adopted
        for event in events:
            state = evolve(state, event)
        self.world.states[release] = state

    def signed_off(self, by: str, step: str, role: str, envelope: str | None) -> ev.SignedOff:
        world = self.world
        place = world.step(step)
        return ev.SignedOff(
            **self.head(by),
            step=step,
            attempt=world.state.attempt,
            role=role,
            decision="approve",
            subject=world.subject(step).digest,
            step_digest=step_digest(place),
            expires_at=world.clock() + place.gate.sign_off_validity,
            envelope=envelope,
        )

    def entry(self, step: str) -> ev.EntryBegan:
        return ev.EntryBegan(
            **self.head("sluice"),
            step=step,
            attempt=self.world.state.attempt,
            subject=self.world.subject(step).digest,
        )

    def entered(self, step: str) -> ev.StepEntered:
        world = self.world
        place = world.step(step)
        head = self.head("sluice")
        return ev.StepEntered(
            **head,
            step=step,
            stage=place.stage,
            attempt=world.state.attempt,
            grants=planned_grants(world.state, place, {}, head["at"]),
        )

    def leaves(self) -> list[bytes]:
        with reading(self.world.engine) as session:
            return [leaf.body for leaf in audit.leaves(session)]

    def rewrite(self, change: Callable[[list[bytes]], Sequence[bytes]]) -> None:
        """Another log in the place of this one, with its own tree; checkpoints of custody stay as they are."""
        changed = change(self.leaves())
        for table in ("event", "audit_leaf", "audit_node"):
            self.sql(f"DELETE FROM {table}")
        self.sql("UPDATE audit_head SET size = 0, frontier = :frontier", frontier=CompactTree().to_bytes())
        with writing(self.world.engine) as session:
            for body in changed:
                entry = json.loads(body)
                leaf = audit.NewLeaf(entry["kind"], body, self.world.clock(), entry.get("release"))
                audit.append_leaves(session, [leaf])

    def altered(self, event_type: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite the log with every event of a type changed."""

        def changed(bodies: list[bytes]) -> list[bytes]:
            made = []
            for body in bodies:
                entry = json.loads(body)
                if entry["kind"] == "event" and entry["event"]["type"] == event_type:
                    change(entry)
                made.append(canonical(entry))
            return made

        self.rewrite(changed)

    def without(self, event_type: str) -> None:
        """Rewrite the log without the events of a type, numbered through anew."""

        def dropped(bodies: list[bytes]) -> list[bytes]:
            made, gone = [], 0
            for body in bodies:
                entry = json.loads(body)
                if entry["kind"] == "event":
                    if entry["event"]["type"] == event_type:
                        gone += 1
                        continue
                    entry["seq"] -= gone
                made.append(canonical(entry))
            return made

        self.rewrite(dropped)

    @contextmanager
    def last_week(self) -> Iterator[None]:
        """What happens in the block is gone after it: the database is restored to what it was."""
        states = dict(self.world.states)
        restore = (
            self._copied_rows() if self.world.engine.dialect.name == "postgresql" else self._copied_file()
        )
        yield
        restore()
        self.world.states = states

    def _copied_file(self) -> Callable[[], None]:
        path = Path(make_url(str(self.world.engine.url)).database or "")
        self.world.engine.dispose()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copyfile(path, path.with_suffix(".backup"))

        def restore() -> None:
            self.world.engine.dispose()
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            shutil.copyfile(path.with_suffix(".backup"), path)

        return restore

    def _copied_rows(self) -> Callable[[], None]:
        """As an operator does it who copies a PostgreSQL database, and puts the copy in its place later."""
        url = self.world.engine.url
        name, copy = str(url.database), f"{url.database}_copy"
        server = url.set(database="postgres").render_as_string(hide_password=False).replace("+psycopg", "")
        self.world.engine.dispose()
        run(server, f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')

        def restore() -> None:
            self.world.engine.dispose()
            run(server, f'DROP DATABASE "{name}" WITH (FORCE)', f'ALTER DATABASE "{copy}" RENAME TO "{name}"')

        return restore

    # --- what must come of it ----------------------------------------------------------------------------------------

    def gets_nothing(self, asked: Asked | str, match: str = "") -> list[Reason]:
        """Custody refuses, unwraps nothing, stores nothing, and both its memory and the log say so; the reasons."""
        given = self.world.asked(asked) if isinstance(asked, str) else asked
        kept, unwraps = self.world.envelopes_kept(), self.unwraps
        refusals = len(self.world.memory.refusals(given.release))
        with pytest.raises(SluiceError) as refused:
            self.world.custody.make_envelopes(given)
        told = " | ".join([refused.value.detail, *(reason.message for reason in refused.value.reasons)])
        assert refused.value.code in {"custody-refused", "custody-waits", "unbacked"}, told
        assert match in told, told
        assert self.world.envelopes_kept() == kept
        assert self.unwraps == unwraps, "nothing was unwrapped"
        assert len(self.world.memory.refusals(given.release)) == refusals + 1, "custody remembers it"
        last = self.world.custody_leaves()[-1]
        assert (last["action"], last["release"]) == ("refused", given.release), "the log says it"
        return list(refused.value.reasons)

    def verify(self, kept: str | None = None) -> VerifiedLog:
        """`sluice audit verify` over an export, with a checkpoint that was kept in a second place."""
        with reading(self.world.engine) as session:
            lines = list(audit.export(session, "sluice.example/log"))
        return verify_export(lines, self.world.keys.public.log_verifier, previous_checkpoint=kept)


__all__ = ["Hold", "Intruder"]
