"""Prefixes of S3 buckets: new and changed objects.

S3 lists by key, not by date, and gives a multipart upload the date of its beginning, so dates say nothing of what is new. Instead
every pass goes through the whole listing and sums up digests of (key, ETag, size) in 256 heaps; then it gives the objects of those
heaps whose sum changed. Whatever the order and dates, an object that was not there in the last pass changes its heap; those that share
the heap are given again under keys that the caller has. The sums are what the cursor holds, whatever the number of objects.
"""

from __future__ import annotations

import hashlib
from typing import Any

from artifacts.leaks.errors import shown
from artifacts.leaks.objects import ObjectStoreRefused, list_page, s3_client
from artifacts.leaks.targets import ObjectStoreOptions
from artifacts.leaks.watching.base import Candidate, Cursor, Digests, Polled, SourceError, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import Poll, polling, short, translate
from artifacts.leaks.watching.settings import BucketsWatch

HEAPS = 256
_SUM = 12  # hex digits of a heap's sum
_GIVING = "giving"


class BucketsSource:
    """Objects below named prefixes (see the module)."""

    kind = "buckets"

    def __init__(self, setting: BucketsWatch, options: Options) -> None:
        self.name = setting.name
        self._setting = setting
        self._options = options

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """New and changed objects, prefix after prefix (see `base.Source`)."""
        cursor = cursor or {}
        prefixes = self._setting.prefixes
        with polling(self.name, self._options) as poll:
            turn, places = cursor.get("turn", 0), dict(cursor.get("prefixes", {}))
            clients: dict[str, Any] = {}
            found: dict[str, Candidate] = {}
            failed: list[str] = []
            first: SourceError | None = None
            done, looked, unfinished = 0, 0, False
            for prefix in (prefixes[(turn + i) % len(prefixes)] for i in range(len(prefixes))):
                if len(found) >= limit or not poll.can_ask():
                    unfinished = True
                    break
                done += 1
                heap = _Heaps(dict(places.get(short(prefix), {})))
                bucket = prefix.removeprefix("s3://").partition("/")[0]
                if bucket not in clients:
                    clients[bucket] = s3_client(self._objects(bucket), poll.asker)
                try:
                    complete = self._pass(clients[bucket], prefix, heap, poll, found, limit)
                    looked += 1
                except Exception as error:
                    known = refused(poll, error) or translate(poll, error)
                    if known is None:
                        raise
                    failed.append(known.message)
                    first = first or known
                    if known.trouble in {Trouble.GONE, Trouble.DENIED, Trouble.MISBEHAVING}:
                        continue
                    break
                places[short(prefix)] = heap.state
                if not complete:
                    unfinished = True
                    break
            if first is not None and not looked:
                raise first
            return Polled(
                candidates=tuple(found.values()),
                cursor={
                    "turn": (turn + done) % len(prefixes),
                    "prefixes": {k: v for k, v in places.items() if k in {short(p) for p in prefixes}},
                },
                more=unfinished and not failed,
                limits=poll.limits(first.retry_after_s if first is not None else None),
                failed="; ".join(failed[:3]),
            )

    def _pass(
        self, client: Any, prefix: str, heaps: _Heaps, poll: Poll, found: dict[str, Candidate], limit: int
    ) -> bool:
        """Go on with a prefix's pass; True when it is complete."""
        bucket, _, base = prefix.removeprefix("s3://").partition("/")
        entries, size = 0, max(100, min(1_000, limit))
        while True:
            if not poll.can_ask() or entries >= self._options.limits.max_entries or len(found) >= limit:
                return False
            rows, more = list_page(client, bucket, base, heaps.state.get("last", ""), size)
            entries += len(rows)
            for row in rows:
                if heaps.take(row) and row["size"] >= self._setting.min_bytes:
                    made = self._candidate(bucket, row)
                    found.setdefault(made.key, made)
            if more:
                heaps.state["last"] = rows[-1]["key"]
            elif heaps.end():
                return True

    def _objects(self, bucket: str) -> ObjectStoreOptions:
        return self._options.objects_of(bucket, self._setting.endpoint, self._setting.region)

    def _candidate(self, bucket: str, row: dict[str, Any]) -> Candidate:
        where = f"s3://{bucket}/{row['key']}"
        place = where if len(where) <= 250 else f"{where[:220]}…{short(where)}"
        detail = {"modified": row["modified"]}
        objects = self._objects(bucket)
        for name in ("endpoint", "region"):
            if getattr(objects, name):
                detail[name] = getattr(objects, name)
        return Candidate(
            source=self.name,
            key=f"{place}#{shown(row['etag'], 40)}",
            target=where,
            title=shown(where, 300),
            size=row["size"],
            seen_at=self._options.now(),
            digests=(Digests(path=shown(row["key"], 200), size=row["size"], etag=shown(row["etag"], 120)),),
            detail=detail,
        )


class _Heaps:
    """Sums of a prefix: `base` of the last complete pass, `now` of the one under way. `state` is plain JSON."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self._base = _numbers(state.get("base"))
        self._now = _numbers(state.get("now")) or [0] * HEAPS
        self._changed = set(state.get("changed", []))

    def take(self, row: dict[str, Any]) -> bool:
        """Count an object; whether it is to be given."""
        digest = hashlib.sha256(f"{row['key']}\0{row['etag']}\0{row['size']}".encode()).digest()
        heap = hashlib.sha256(row["key"].encode()).digest()[0]
        self._now[heap] = (self._now[heap] + int.from_bytes(digest[:6], "big")) % (1 << 4 * _SUM)
        self.state["now"] = _text(self._now)
        return self._base is None or heap in self._changed

    def end(self) -> bool:
        """The listing has ended; False if it is to be gone through again to give what changed."""
        giving = self.state.get("phase") == _GIVING
        changed = [] if self._base is None or giving else [
            i for i in range(HEAPS) if self._base[i] != self._now[i]
        ]  # fmt: skip
        if changed:
            self._changed = set(changed)
            self.state |= {"phase": _GIVING, "changed": changed, "listed": _text(self._now)}
        else:
            # What was given counts as it was when it was given, the rest as it was listed before.
            listed = _numbers(self.state.get("listed")) or self._now
            base = [self._now[i] if not giving or i in self._changed else listed[i] for i in range(HEAPS)]
            self.state = {"base": _text(base)}
        for name in ("last", "now"):
            self.state.pop(name, None)
        self._now = [0] * HEAPS
        return not changed


def _numbers(text: object) -> list[int] | None:
    if not isinstance(text, str) or len(text) != HEAPS * _SUM:
        return None
    return [int(text[i : i + _SUM], 16) for i in range(0, len(text), _SUM)]


def _text(numbers: list[int]) -> str:
    return "".join(f"{n:0{_SUM}x}" for n in numbers)


def refused(poll: Poll, error: Exception) -> SourceError | None:
    """What an object store's refusal means for the source."""
    if not isinstance(error, ObjectStoreRefused):
        return None
    trouble = {"NoSuchBucket": Trouble.GONE, "NoSuchKey": Trouble.GONE, "404": Trouble.GONE}
    return poll.error(str(error), trouble.get(error.code, Trouble.DENIED))
