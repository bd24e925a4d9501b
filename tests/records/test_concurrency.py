"""Many writers at once, in threads and in processes: no event is lost or doubled, and the log verifies."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from sqlalchemy import select, text

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import decide_create
from orchestrator.domain.errors import Conflict, Unavailable
from orchestrator.records import audit, releases
from orchestrator.records.database import connect, reading, writing
from orchestrator.records.migrate import migrate, newest, schema
from orchestrator.records.tables import EventRow
from orchestrator.trust.audit import verify_export
from tests.records.story import Story, creation, put, request
from tests.records.test_audit import LOG, checkpoint
from tests.support.plans import MANAGER, T0


def write_many(engine, release, writer, count, seed):
    """Append commands as workers do that do not know of each other: adopt, decide anew, and lose answers."""
    chance = random.Random(f"{seed}-{writer}")
    with reading(engine) as session:
        seq = releases.load(session, release).seq
    for number in range(count):
        command = cmd.ReportAccess(
            command_id=f"{writer}-{number}", actor=MANAGER, working=False, reason=writer
        )
        while True:
            event = ev.AccessReported(
                at=T0, by=writer, command_id=command.command_id, working=False, reason=f"{writer} {number}"
            )
            asked = request(release, seq + 1, [event], command)
            done = put(engine, asked)
            if chance.random() < 0.3:  # the answer was lost: asked again, the same stands
                again = put(engine, asked)
                assert again.events[: len(done.events)] == done.events
                assert again.adopted == done.adopted
                done = again
            seq += len(done.events)
            if not done.adopted:
                break


def write_in_a_process(url, release, writer, count, seed):
    engine = connect(url, pool_size=2)
    write_many(engine, release, writer, count, seed)
    engine.dispose()


def check(engine, expected):
    """Every command of `expected` once, sequences without gaps, the log whole and in the order of the events."""
    with reading(engine) as session:
        rows = session.execute(select(EventRow).order_by(EventRow.id)).scalars().all()
        seqs = {}
        for row in rows:
            assert row.seq == seqs.get(row.release, 0) + 1
            seqs[row.release] = row.seq
        assert Counter(row.command_id for row in rows if row.type == "access_reported") == expected
        for release, seq in seqs.items():
            assert releases.load(session, release).seq == seq
            assert len(releases.check_events(session, release)) == seq
    checkpoint(engine)
    with reading(engine) as session:
        leaves = []
        lines = audit.export(session, LOG.name)
        verified = verify_export(lines, LOG.verifier, on_entry=lambda _n, leaf: leaves.append(leaf))
        assert verified.root == audit.head(session).root()
    events = [(leaf["release"], leaf["seq"]) for leaf in leaves if leaf["kind"] == "event"]
    assert events == [(row.release, row.seq) for row in rows]
    return leaves


def test_threads_on_one_release_and_on_others_lose_and_double_nothing(engine):
    for name in ("alpha", "beta", "gamma"):
        Story(engine, name, version=name)
    jobs = [("alpha", "a1"), ("alpha", "a2"), ("alpha", "a3"), ("beta", "b1"), ("gamma", "g1")]
    stop = threading.Event()

    def refuse():
        made = 0
        while not stop.is_set() and made < 200:
            with writing(engine) as session:
                audit.record_refusal(session, at=T0, actor="sam", action="hold", code="conflict", detail="no")
            made += 1
        return made

    with ThreadPoolExecutor(8) as pool:
        refused = pool.submit(refuse)
        done = [pool.submit(write_many, engine, release, writer, 12, 1) for release, writer in jobs]
        for one in done:
            one.result(60)
        stop.set()
        refusals = refused.result(60)
    leaves = check(engine, Counter({f"{writer}-{n}": 1 for _r, writer in jobs for n in range(12)}))
    assert sum(leaf["kind"] == "refusal" for leaf in leaves) == refusals


def test_processes_on_one_release_and_on_others_lose_and_double_nothing(engine, url):
    for name in ("alpha", "beta"):
        Story(engine, name, version=name)
    jobs = [("alpha", "p1"), ("alpha", "p2")]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        others = [pool.submit(write_in_a_process, url, release, writer, 10, 2) for release, writer in jobs]
        write_many(engine, "beta", "here", 10, 2)
        write_many(engine, "alpha", "here-too", 10, 2)
        for one in others:
            one.result(120)
    writers = ["p1", "p2", "here", "here-too"]
    check(engine, Counter({f"{writer}-{n}": 1 for writer in writers for n in range(10)}))


def test_of_many_creations_of_one_name_and_version_one_stands(engine):
    def create(number):
        command = creation(f"r{number}")
        try:
            put(engine, request(f"r{number}", 1, decide_create(command, T0), command))
        except Conflict:
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1
    with reading(engine) as session:
        assert len(releases.feed(session)) == 1
        assert audit.head(session).size == 1
    check(engine, Counter())


def test_one_creation_sent_many_times_at_once_is_one_release(engine):
    command = creation()
    asked = request("alpha", 1, decide_create(command, T0), command)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _n: put(engine, asked), range(6)))
    assert all(answer.events == list(asked.events) and not answer.adopted for answer in answers)
    check(engine, Counter())


def test_several_processes_may_migrate_at_once(databases):
    url = databases.empty()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate, [url] * 4)) == {newest()}
    engine = connect(url)
    assert schema(engine) == newest()
    engine.dispose()


def test_a_reader_sees_one_moment_while_others_write(engine):
    story = Story(engine)
    with reading(engine) as session:
        before = releases.load(session, "alpha")
        story.hold()
        assert releases.load(session, "alpha") == before
        assert len(releases.events(session, "alpha")) == 1
        assert audit.head(session).size == 1
    with reading(engine) as session:
        assert releases.load(session, "alpha") == story.state


def test_a_writer_that_waits_too_long_is_told_so_and_may_come_again(url):
    first, second = connect(url), connect(url)
    try:
        Story(first)
        with writing(first) as session:
            releases.hold(session, "alpha")
            with pytest.raises(Unavailable, match="does not answer"):
                impatient(second)
        with writing(second) as other:
            assert releases.hold(other, "alpha").release == "alpha"
    finally:
        first.dispose()
        second.dispose()


def impatient(engine):
    """Write, but wait for 50 ms at most: on SQLite the wait is at the beginning, so it is shortened before."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    with writing(engine) as session:
        session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        releases.hold(session, "alpha")


def die_before_the_commit(url):
    engine = connect(url)
    command = cmd.ReportAccess(command_id="dying", actor=MANAGER, working=False, reason="dying")
    event = ev.AccessReported(at=T0, by="dying", command_id="dying", working=False, reason="dying")
    with writing(engine) as session:
        releases.append(session, request("alpha", 2, [event], command), T0)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_before_its_commit_leaves_nothing_and_holds_nobody_up(engine, url):
    story = Story(engine)
    worker = multiprocessing.get_context("spawn").Process(target=die_before_the_commit, args=(url,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    story.hold()
    with reading(engine) as session:
        assert [one.event.type for one in releases.events(session, "alpha")] == [
            "release_created",
            "hold_placed",
        ]
    check(engine, Counter())
