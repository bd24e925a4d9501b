"""What custody remembers, in a database of its own that nobody else can write: SQLite, or PostgreSQL for several workers.

    tree      size and frontier of the log as last verified
    leaf      of every leaf: its hash, whose release it is of, when custody first saw it
    holding   of every artifact: the first release that bound it, and its root under the key-encryption key
    refusal   what custody refused and why: the service's log can be cut, this cannot

An artifact is bound to the release that bound it first, for ever: a second release with weaker rules gets no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from orchestrator.trust.merkle import CompactTree

_METADATA = MetaData()
_TREE = Table(
    "custody_tree",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("note", Text),
)
_LEAF = Table(
    "custody_leaf",
    _METADATA,
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("release", String, index=True),
    Column("seq", Integer),
    Column("seen_at", Float, nullable=False),
)
_HOLDING = Table(
    "custody_holding",
    _METADATA,
    Column("artifact", String, primary_key=True),
    Column("release", String, nullable=False),
    Column("manifest_digest", String, nullable=False),
    Column("plan_digest", String, nullable=False),
    Column("wrapped", Text, nullable=False),
)

_REFUSAL = Table(
    "custody_refusal",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("release", String, nullable=False, index=True),
    Column("step", String, nullable=False),
    Column("code", String, nullable=False),
    Column("detail", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class SeenLeaf:
    """A leaf as custody remembers it. `seq`: of a release's event, its place in the release; None for other kinds."""

    index: int
    hash: bytes
    release: str | None
    seq: int | None
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Holding:
    """An artifact's root key under the key-encryption key, and what it is bound to."""

    artifact: str
    release: str
    manifest_digest: str
    plan_digest: str
    wrapped: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request that custody refused."""

    at: datetime
    release: str
    step: str
    code: str
    detail: str


class CustodyMemory:
    """Custody's own database. Every method is one transaction."""

    def __init__(self, url: str, password: str | None = None) -> None:
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.partition("://")[2]
        place = make_url(url)
        if password is not None:
            place = place.set(password=password)
        self._engine: Engine = create_engine(place, hide_parameters=True, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _pragmas)
            event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(custody_write=True)
        _METADATA.create_all(self._engine)
        with self._writer.begin() as connection:
            if connection.execute(select(_TREE.c.id)).first() is None:
                empty = CompactTree().to_bytes()
                connection.execute(insert(_TREE).values(id=1, size=0, frontier=empty, note=None))

    @property
    def engine(self) -> Engine:
        """For what custody keeps in tables of its own (`activities.custody.copies`)."""
        return self._writer

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def tree(self) -> CompactTree:
        """The log's tree as last verified."""
        with self._engine.connect() as connection:
            return CompactTree.from_bytes(bytes(connection.execute(select(_TREE.c.frontier)).scalar_one()))

    @contextmanager
    def extending(self) -> Iterator[tuple[CompactTree, Connection]]:
        """The tree, held so that one worker extends it at a time; `remember` in the same block."""
        with self._writer.begin() as connection:
            row = connection.execute(select(_TREE.c.frontier).with_for_update()).scalar_one()
            yield CompactTree.from_bytes(bytes(row)), connection

    def remember(self, connection: Connection, tree: CompactTree, leaves: Sequence[SeenLeaf]) -> None:
        """Keep more leaves and the tree over them."""
        if leaves:
            rows = [
                {
                    "index": leaf.index,
                    "hash": leaf.hash,
                    "release": leaf.release,
                    "seq": leaf.seq,
                    "seen_at": leaf.seen_at.timestamp(),
                }
                for leaf in leaves
            ]
            connection.execute(insert(_LEAF), rows)
        connection.execute(update(_TREE).values(size=tree.size, frontier=tree.to_bytes()))

    def last_seen(self) -> datetime | None:
        """When custody saw the newest leaf; None before the first."""
        with self._engine.connect() as connection:
            newest = select(_LEAF.c.seen_at).order_by(_LEAF.c.index.desc()).limit(1)
            found = connection.execute(newest).scalar_one_or_none()
        return None if found is None else datetime.fromtimestamp(found, UTC)

    def leaves_of(self, release: str) -> list[SeenLeaf]:
        """The leaves of a release's events, in order."""
        statement = select(_LEAF).where(_LEAF.c.release == release, _LEAF.c.seq.is_not(None))
        with self._engine.connect() as connection:
            rows = connection.execute(statement.order_by(_LEAF.c.index)).all()
        return [
            SeenLeaf(r[0], bytes(r.hash), r.release, r.seq, datetime.fromtimestamp(r.seen_at, UTC))
            for r in rows
        ]

    def holding(self, artifact: str) -> Holding | None:
        """What is held of an artifact."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_HOLDING).where(_HOLDING.c.artifact == artifact)).one_or_none()
        return None if row is None else Holding(*row)

    def holdings(self) -> list[Holding]:
        """Everything that is held."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_HOLDING).order_by(_HOLDING.c.artifact)).all()
        return [Holding(*row) for row in rows]

    def note_refusal(self, refusal: Refusal) -> None:
        """Keep what was refused."""
        with self._writer.begin() as connection:
            connection.execute(
                insert(_REFUSAL).values(
                    at=refusal.at.timestamp(),
                    release=refusal.release,
                    step=refusal.step,
                    code=refusal.code,
                    detail=refusal.detail,
                )
            )

    def refusals(self, release: str) -> list[Refusal]:
        """What was refused of a release, oldest first."""
        statement = select(_REFUSAL).where(_REFUSAL.c.release == release).order_by(_REFUSAL.c.id)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return [Refusal(datetime.fromtimestamp(r.at, UTC), r.release, r.step, r.code, r.detail) for r in rows]

    def take_in(self, holding: Holding) -> Holding:
        """Hold an artifact's root; whoever was first stays."""
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(_HOLDING).values(
                        artifact=holding.artifact,
                        release=holding.release,
                        manifest_digest=holding.manifest_digest,
                        plan_digest=holding.plan_digest,
                        wrapped=holding.wrapped,
                    )
                )
        except IntegrityError:
            known = self.holding(holding.artifact)
            if known is None:
                raise
            return known
        return holding

    def rewrap(self, old: Holding, plan_digest: str, wrapped: str) -> Holding:
        """Keep a root that was wrapped anew, under another plan or another version of the key; nothing changes if somebody was faster."""
        with self._writer.begin() as connection:
            connection.execute(
                update(_HOLDING)
                .where(_HOLDING.c.artifact == old.artifact, _HOLDING.c.wrapped == old.wrapped)
                .values(plan_digest=plan_digest, wrapped=wrapped)
            )
        found = self.holding(old.artifact)
        if found is None:
            raise LookupError(old.artifact)
        return found


def _pragmas(connection: object, _record: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("custody_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
