"""The Hub: new and changed models, datasets and spaces, by size and by name.

Each combination of listing, filter and order is a *lane* with a place of its own in the cursor. A lane goes through its listing from
the newest entry down to its mark, the newest time of its last complete pass, less an overlap; then the mark moves up. A pass may take
many polls: it goes on at the page where it stopped. What makes it lose nothing:

- The mark moves only when a pass is complete, so an outage or restart in the middle repeats instead of skipping.
- Entries with equal times, or times a little below the mark, are looked at again; digests of what was given lately keep most
  repetitions out, and the keys show the rest to the caller.
- The mark is never ahead of our own clock, and falls back when the Hub's clock does: entries stamped by a clock that stepped
  are not below it.
- An entry that changes during a pass moves to the top, above the mark of the pass: the next one sees it.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from artifacts.leaks.asking import Answer, hub_requests
from artifacts.leaks.errors import shown
from artifacts.leaks.watching.base import Candidate, Cursor, Polled, SourceError, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import Poll, from_text, polling, short, to_text, translate
from artifacts.leaks.watching.settings import HubWatch

PAGE = 100
MAX_PULLS = 50
_SEEN_IN_ALL = 2_000
_FIELDS = {
    "models": ["sha", "createdAt", "lastModified", "safetensors", "gguf", "gated", "usedStorage"],
    "datasets": ["sha", "createdAt", "lastModified", "gated", "usedStorage"],
    "spaces": ["sha", "createdAt", "lastModified", "usedStorage"],
}
_PREFIX = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
_OF_ONE_LANE = {Trouble.MISBEHAVING, Trouble.GONE}
_IDENTITY = re.compile(r"^[\w.-]{1,96}(/[\w.-]{1,96})?$", re.ASCII)
_LITERAL = re.compile(r"[\w.-]+", re.ASCII)


_TIMES = ("mark", "at", "top", "began", "server", "floor", "last")
_SLACK = timedelta(seconds=5)  # a server's Date is in whole seconds, and made after the listing


@dataclass(frozen=True)
class _Lane:
    """One listing that is followed: what of, filtered how, in which order."""

    kind: str
    order: str  # created_at, last_modified; full: everything, by created_at
    name: str = ""
    sized: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind} {self.order} {'sized' if self.sized else self.name or 'all'}"

    def time(self, entry: Any) -> datetime:
        found = entry.last_modified if self.order == "last_modified" else entry.created_at
        if not isinstance(found, datetime):
            raise ValueError("an entry without its time")  # noqa: TRY004 - a malformed answer, not a wrong call
        return found


@dataclass
class _Place:
    """Where a lane is. All of it is in the cursor."""

    mark: datetime | None = None  # everything up to here was given; None: never complete
    at: datetime | None = None  # our clock when the last complete pass began
    seen: list[str] = field(default_factory=list)  # of what was given since the mark, less the overlap
    top: datetime | None = None  # of the pass under way: the mark when it is complete
    began: datetime | None = None
    server: datetime | None = None  # the Hub's clock when it began
    floor: datetime | None = None
    link: str | None = None  # the page where the pass goes on; None: the first
    last: datetime | None = None  # the time of the last entry that was looked at
    given: list[str] = field(default_factory=list)  # in this pass
    done: int = -1  # the round in which its last pass ended

    def text(self) -> dict[str, Any]:
        out: dict[str, Any] = {"done": self.done} if self.done >= 0 else {}
        for name in _TIMES:
            value = getattr(self, name)
            if value is not None:
                out[name] = to_text(value)
        for name in ("link", "seen", "given"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        return out

    @classmethod
    def of(cls, text: dict[str, Any]) -> _Place:
        place = cls(
            link=text.get("link"),
            seen=list(text.get("seen", [])),
            given=list(text.get("given", [])),
            done=int(text.get("done", -1)),
        )
        for name in _TIMES:
            if name in text:
                setattr(place, name, from_text(text[name]))
        return place

    def end_pass(self, keep: int, now: datetime, round_: int, *, complete: bool) -> None:
        self.done = round_
        if complete:
            assert self.began is not None, "a pass that ends has begun"
            # A mark ahead of our clock would hide what is stamped rightly afterwards.
            # What comes later is stamped by the Hub's clock as it is now, or, if that steps back, see `_begin`.
            clocks = [self.began] if self.server is None else [self.began, self.server]
            self.mark = min(self.top, *clocks) if self.top else self.mark or self.floor or now
            self.at, self.seen = self.began, self.given[:keep]
        self.top = self.began = self.server = self.floor = self.link = self.last = None
        self.given = []


class HubSource:
    """New and changed repositories of the whole Hub (see the module)."""

    kind = "hub"

    def __init__(self, setting: HubWatch, options: Options) -> None:
        self.name = setting.name
        self._setting = setting
        self._options = options
        self._lanes = list(self._all_lanes())
        self._keep = max(20, _SEEN_IN_ALL // len(self._lanes))

    def _all_lanes(self) -> Iterator[_Lane]:
        setting = self._setting
        orders = ["created_at", "last_modified"] + (["full"] if setting.full_every_hours else [])
        for kind in setting.repositories:
            sized = kind == "models" and setting.parameters is not None
            for order in orders:
                if sized:
                    yield _Lane(kind, order, sized=True)
                for name in dict.fromkeys(setting.names):
                    yield _Lane(kind, order, name)
                if not sized and not setting.names:
                    yield _Lane(kind, order)

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """The next candidates of the lanes in turn, as far as limit and budget go (see `base.Source`)."""
        run = _Run(self, cursor, limit)
        with polling(self.name, self._options) as poll:
            try:
                run.read_cursor()
            except (ValueError, TypeError, AttributeError) as error:
                message = "the cursor is not one of this source; start it without one"
                raise poll.error(message, Trouble.SETTING) from error
            return run.go(poll)


class _Run:
    """One poll."""

    def __init__(self, source: HubSource, cursor: Cursor | None, limit: int) -> None:
        self.source, self.cursor, self.limit = source, cursor or {}, max(1, limit)
        self.setting, self.options = source._setting, source._options  # noqa: SLF001 - two halves of one thing
        self.lanes, self.keep = source._lanes, source._keep  # noqa: SLF001
        self.places: dict[str, _Place] = {}
        self.turn = self.round = 0
        self.known: set[str] = set()
        self.found: dict[str, Candidate] = {}
        self.notes: list[str] = []
        self.failed: list[str] = []
        self.rows = self.pages = 0
        self.link: str | None = None
        self.now = self.options.now()

    def read_cursor(self) -> None:
        self.turn = int(self.cursor.get("turn", 0)) % len(self.lanes)
        held = self.cursor.get("lanes", {})
        self.round = int(self.cursor.get("round", 0))
        self.places = {lane.id: _Place.of(held.get(lane.id, {})) for lane in self.lanes}
        # What one lane gave, and whoever keeps the cursor has, need not be given by another.
        self.known = {tag for place in self.places.values() for tag in (*place.seen, *place.given)}

    def go(self, poll: Poll) -> Polled:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.options.hub.endpoint, token=self.options.hub.token or False)
        heard = poll.asker.on_answer

        def on_answer(answer: Answer) -> None:
            heard(answer)
            self.link = _next_link(answer)

        poll.asker.on_answer = on_answer
        order = [self.lanes[(self.turn + i) % len(self.lanes)] for i in range(len(self.lanes))]
        unfinished, done = False, 0
        first: SourceError | None = None
        for lane in order:
            if not self._due(lane):
                done += 1
                continue
            if (
                len(self.found) >= self.limit
                or not poll.can_ask()
                or self.rows >= self.options.limits.max_entries
            ):
                unfinished = True
                break
            try:
                finished = self._pass(api, lane, poll)
            except Exception as error:
                first = translate(poll, error) if first is None else first
                if first is None:
                    raise
                self.failed.append(first.message)
                if first.trouble not in _OF_ONE_LANE:
                    break
                finished = True
            done += 1  # a lane that has more to give lets the others go first
            if not finished:
                unfinished = True
                break
        if first is not None and not self.pages:
            raise first
        wait = first.retry_after_s if first is not None else None
        return self._polled(poll, done, unfinished=unfinished, wait=wait)

    def _due(self, lane: _Lane) -> bool:
        place, every = self.places[lane.id], self.setting.full_every_hours
        if place.done == self.round:
            return False
        if lane.order != "full" or place.began is not None or place.at is None:
            return True
        return every is not None and abs(self.now - place.at) >= timedelta(hours=every)

    def _polled(self, poll: Poll, done: int, *, unfinished: bool, wait: float | None = None) -> Polled:
        if poll.rested:
            self.notes.append(
                "stopped where the server's rate limit ends; it goes on when the window starts again"
            )
        marks = [
            p.mark or self.now - timedelta(hours=self.setting.start_hours)
            for lane in self.lanes
            if lane.order != "full" and ((p := self.places[lane.id]).began is not None or p.mark is None)
        ]
        behind = max(0.0, (self.now - min(marks)).total_seconds()) if marks else 0.0
        cursor = {
            # A round ends when each lane has ended a pass: polling goes on until then, and not for ever.
            "round": self.round if unfinished else self.round + 1,
            "turn": (self.turn + done) % len(self.lanes),
            "lanes": {lane.id: text for lane in self.lanes if (text := self.places[lane.id].text())},
        }
        return Polled(
            candidates=tuple(self.found.values()),
            cursor=cursor,
            more=unfinished and not self.failed and not poll.rested,
            limits=poll.limits(wait),
            notes=tuple(dict.fromkeys(self.notes)),
            failed="; ".join(self.failed[:3]),
            behind_s=behind,
        )

    # -- one lane -------------------------------------------------------------------------------------------------

    def _begin(self, lane: _Lane, place: _Place, poll: Poll) -> None:
        """The floor of a new pass: the mark, or lower where a clock went back, less the overlap."""
        place.began = self.now
        place.server = poll.server_now - _SLACK if poll.server_now is not None else None
        overlap = timedelta(minutes=self.setting.overlap_minutes)
        if lane.order == "full":
            place.floor = None
            return
        mark = place.mark
        if mark is None:
            place.floor = self.now - timedelta(hours=self.setting.start_hours) - overlap
            return
        server = place.server
        if server is not None and place.at is not None:
            mark = min(mark, server - max(timedelta(), self.now - place.at))
        place.floor = min(mark, self.now) - overlap

    def _pass(self, api: Any, lane: _Lane, poll: Poll) -> bool:
        """Go on with a lane's pass; True when it is complete."""
        place = self.places[lane.id]
        pages, before = 0, None
        while True:
            if pages and (not poll.can_ask() or self.rows >= self.options.limits.max_entries):
                return False
            asked, page = self._page(api, lane, place, poll)
            pages += 1
            self.pages += 1
            if place.began is None:  # the Hub's clock is known once it has answered
                self._begin(lane, place, poll)
            # A page that is resumed may have been pushed down by newer entries; only pages after it must be older.
            following, last = self.link, place.last if pages > 1 else None
            times = [lane.time(entry) for entry in page]
            if any(a < b for a, b in itertools.pairwise(times)):
                return self._give_up(lane, "the listing is not in the order that was asked for")
            if place.top is None and times:
                place.top = times[0]
            for entry, moment in zip(page, times, strict=True):
                self.rows += 1
                if place.floor is not None and moment < place.floor:
                    place.end_pass(self.keep, self.now, self.round, complete=True)
                    return True
                if len(self.found) >= self.limit or not self._take(api, lane, place, entry, poll):
                    place.link = asked
                    return False
                place.last = moment
            if following is None:
                place.end_pass(self.keep, self.now, self.round, complete=True)
                return True
            names = [str(entry.id) for entry in page]
            newer = bool(times) and last is not None and times[-1] > last
            if following == asked or newer or not names or names == before:
                return self._give_up(lane, "the listing gives the same page for ever")
            before, place.link = names, following
            del place.given[self.keep :]  # of a page that is behind us nothing need be remembered

    def _give_up(self, lane: _Lane, why: str) -> bool:
        """End a pass that cannot be completed: its mark stays, so nothing below it is taken as seen."""
        self.failed.append(f"{self.source.name}: {lane.id}: {why}")
        self.places[lane.id].end_pass(self.keep, self.now, self.round, complete=False)
        return True

    def _page(self, api: Any, lane: _Lane, place: _Place, poll: Poll) -> tuple[str | None, list[Any]]:
        """One page, and the address that it was resumed at."""
        link = place.link
        filters: dict[str, Any] = {"sort": "last_modified" if lane.order == "last_modified" else "created_at"}
        if lane.sized and self.setting.parameters is not None:
            bounds = self.setting.parameters
            filters["num_parameters"] = f"min:{bounds.min},max:{bounds.max}"
        if lane.name:
            pieces = _LITERAL.findall(lane.name)
            filters["search"] = max(pieces, key=len) if pieces else None
        call = getattr(api, f"list_{lane.kind}")
        with hub_requests(poll.asker, first_url=link):
            return link, list(call(limit=PAGE, expand=_FIELDS[lane.kind], **filters))

    def _take(self, api: Any, lane: _Lane, place: _Place, entry: Any, poll: Poll) -> bool:
        """Make the candidates of an entry; False if the budget does not suffice to ask for its refs."""
        identity, commit = str(entry.id), str(entry.sha or "")
        if not _IDENTITY.match(identity):
            self.notes.append(f"a repository with an impossible name was left out: {shown(identity, 60)}")
            return True
        if lane.name and not fnmatch.fnmatchcase(identity.lower(), lane.name.lower()):
            return True
        storage = getattr(entry, "used_storage", None)
        if isinstance(storage, int) and storage < self.setting.min_bytes:
            return True
        where = f"hf:{_PREFIX[lane.kind]}{identity}"
        key = f"{where}@{commit or to_text(lane.time(entry))}"[:300]
        tag = short(key)
        if tag in self.known:
            if tag not in place.given:
                place.given.append(tag)
            return True
        pulls: list[Candidate] = []
        if self.setting.pull_requests:
            if not poll.can_ask():
                return False
            pulls = self._pulls(api, lane.kind, identity, poll)
        parameters = _parameters(entry)
        detail = {
            "repository": identity,
            "type": lane.kind,
            "created": _iso(entry.created_at),
            "modified": _iso(entry.last_modified),
            "parameters": parameters,
            "gated": getattr(entry, "gated", None),
        }
        candidate = Candidate(
            source=self.source.name,
            key=key,
            target=f"{where}@{commit}" if commit else where,
            title=shown(f"{where}: {lane.kind.removesuffix('s')}, {_amount(parameters)}", 300),
            size=storage if isinstance(storage, int) else None,
            seen_at=self.now,
            detail={k: v for k, v in detail.items() if v is not None},
        )
        for made in (candidate, *pulls):
            self.found.setdefault(made.key, made)
        place.given.append(tag)
        self.known.add(tag)
        return True

    def _pulls(self, api: Any, kind: str, identity: str, poll: Poll) -> list[Candidate]:
        """The pull-request refs of a repository; one that vanished meanwhile has none."""
        from huggingface_hub.errors import RepositoryNotFoundError

        repo_type = kind.removesuffix("s")
        try:
            with hub_requests(poll.asker):
                refs = api.list_repo_refs(identity, repo_type=repo_type, include_pull_requests=True)
        except RepositoryNotFoundError:
            return []
        pulls = refs.pull_requests or []
        if len(pulls) > MAX_PULLS:
            self.notes.append(
                f"{identity}: only the last {MAX_PULLS} of {len(pulls)} pull requests are looked at"
            )
        return [
            ref_candidate(self.source.name, kind, identity, str(p.ref), str(p.target_commit), self.now)
            for p in pulls[-MAX_PULLS:]
        ]


def ref_candidate(
    source: str, kind: str, identity: str, ref: str, commit: str, now: datetime, **more: Any
) -> Candidate:
    """The candidate of one commit of a repository; its key does not depend on how it was found."""
    where = f"hf:{_PREFIX[kind]}{identity}"
    return Candidate(
        source=source,
        key=f"{where}@{commit}"[:300],
        target=f"{where}@{commit}",
        title=shown(f"{where}: {ref}", 300),
        seen_at=now,
        detail={"repository": identity, "type": kind, "ref": ref, **more.pop("detail", {})},
        **more,
    )


def _next_link(answer: Answer) -> str | None:
    for part in answer.headers.get("link", "").split(","):
        address, _, rest = part.partition(";")
        if 'rel="next"' in rest:
            return str(address.strip().strip("<>"))[:4_000]
    return None


def _parameters(entry: Any) -> int | None:
    """How many parameters the Hub counted, from safetensors or GGUF headers."""
    for held in (getattr(entry, "safetensors", None), getattr(entry, "gguf", None)):
        total = held.get("total") if isinstance(held, dict) else getattr(held, "total", None)
        if isinstance(total, int):
            return total
    return None


def _amount(parameters: int | None) -> str:
    return f"{parameters:,} parameters" if parameters is not None else "size not counted"


def _iso(moment: object) -> str | None:
    return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else None
