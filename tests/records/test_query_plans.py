"""With 5 000 releases every read goes by an index, so that no page depends on how many releases there are."""

from __future__ import annotations

import pytest
from sqlalchemy import event, inspect, text

from orchestrator.records import audit, grants, incidents, pending, principals, releases
from orchestrator.records.database import reading, writing
from tests.records.story import Story
from tests.support.plans import T0

MANY = 5_000


@pytest.fixture(scope="module")
def crowded(databases):
    """One release that went through things, and 5 000 copies of its rows."""
    from orchestrator.records.database import connect

    engine = connect(databases.migrated())
    story = Story(engine)
    story.enter("inside")
    story.enter("demo")
    story.report("leak-1")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) "
    with writing(engine) as session:
        leaf = audit.NewLeaf("access", b"{}", T0, "other")
        audit.append_leaves(session, [leaf] * MANY)
        columns = {
            "release": {"id": "'r' || i", "version": "'v' || i", "name_key": "'model' || i", "state": "'{}'"},
            "wait": {"release": "'r' || i"},
            "grant_row": {"release": "'r' || i"},
            "incident": {"release": "'r' || i"},
            "event": {"release": "'r' || i", "id": "id + 100 * i"},
            "command": {"release": "'r' || i"},
        }
        for table, changed in columns.items():
            names = [column["name"] for column in inspect(engine).get_columns(table)]
            values = ", ".join(changed.get(name, f'"{name}"') for name in names)
            few = "WHERE seq <= 2" if table in {"event", "command"} else ""
            session.execute(
                text(f'INSERT INTO "{table}" {numbers} SELECT {values} FROM "{table}", n {few}')
                if engine.dialect.name == "sqlite"
                else text(f'{numbers} INSERT INTO "{table}" SELECT {values} FROM "{table}", n {few}')
            )
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    yield engine
    engine.dispose()


def plans(engine, ask):
    """What the database does for `ask`: the plan of each statement that it runs."""
    ran = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.lstrip().upper().startswith("SELECT"):
            ran.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with reading(engine) as session:
            ask(session)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert ran
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        return [
            (
                statement,
                "\n".join(
                    str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters)
                ),
            )
            for statement, parameters in ran
        ]


def second_page(ask):
    return lambda session: ask(session, ask(session, None).next)


F = releases.Filter
READS = {
    "a release's state": lambda s: releases.load(s, "alpha"),
    "a release's summary": lambda s: releases.summary(s, "r77"),
    "a release by name and version": lambda s: releases.find(s, "Model", "v77"),
    "a command by its id": lambda s: releases.handled(s, "r77", "alpha-1"),
    "newest releases": second_page(lambda s, c: releases.list_releases(s, cursor=c)),
    "last changed releases": second_page(lambda s, c: releases.list_releases(s, order="updated", cursor=c)),
    "releases by name": second_page(lambda s, c: releases.list_releases(s, order="name", cursor=c)),
    "releases by prefix": second_page(
        lambda s, c: releases.list_releases(s, F(name_prefix="model1"), cursor=c)
    ),
    "active releases": second_page(lambda s, c: releases.list_releases(s, F(status="active"), cursor=c)),
    "hosted releases": second_page(lambda s, c: releases.list_releases(s, F(stage="hosted"), cursor=c)),
    "active hosted releases": second_page(
        lambda s, c: releases.list_releases(s, F(status="active", stage="hosted"), cursor=c)
    ),
    "releases of a holder": second_page(lambda s, c: releases.list_releases(s, F(holder="uni"), cursor=c)),
    "releases of one holder of few": lambda s: releases.list_releases(s, F(holder="rare")),
    "releases that wait for me": second_page(
        lambda s, c: releases.list_releases(s, F(waiting_for="sam"), cursor=c)
    ),
    "events of a release": lambda s: releases.events(s, "r77", after=1, limit=10),
    "events of all": lambda s: releases.feed(s, after=4_000, limit=100),
    "the last event": releases.last_event,
    "what waits for me": second_page(lambda s, c: pending.for_person(s, "sam", cursor=c)),
    "what time has changed": lambda s: pending.due_for_refresh(s, T0, limit=10),
    "a holder's grants": second_page(lambda s, c: grants.of_holder(s, "uni", cursor=c)),
    "grants of a release": lambda s: grants.of_release(s, "r77"),
    "open incidents": second_page(lambda s, c: incidents.list_incidents(s, is_open=True, cursor=c)),
    "all incidents": second_page(lambda s, c: incidents.list_incidents(s, cursor=c)),
    "whose token": lambda s: principals.authenticate(s, "slt_" + "A" * 43, T0),
    "leaves of a release": lambda s: list(audit.leaves(s, release="alpha", limit=10)),
    "the head of the log": audit.head,
}


@pytest.mark.parametrize("read", READS)
def test_reads_go_by_an_index_whatever_there_is(crowded, read):
    for statement, plan in plans(crowded, READS[read]):
        if crowded.dialect.name == "sqlite":
            scans = [line for line in plan.splitlines() if line.startswith("SCAN") and "USING" not in line]
            assert scans == [], f"{statement}\n{plan}"
        elif not any(small in statement for small in ("FROM token", "FROM audit_head")):
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"
        if read != "grants of a release" and "IN (SELECT" not in statement:  # few are sorted
            assert "TEMP B-TREE" not in plan, f"{statement}\n{plan}"
            assert "Sort  (" not in plan, f"{statement}\n{plan}"
