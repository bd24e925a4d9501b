"""Access logs of an own bucket (S3 server access logging): reads of decoys, and reads by nobody we expect.

Logs come late and not in order, some hours at worst, in objects whose names begin with the date. A poll reads the objects behind the
last name less a day, and remembers which of these it read. Log records are best effort: one may be missing, so their silence proves
nothing.
"""

from __future__ import annotations

import fnmatch
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from artifacts.leaks.errors import shown
from artifacts.leaks.objects import list_page, s3_call, s3_client
from artifacts.leaks.watching.base import Candidate, Cursor, Polled, Trouble
from artifacts.leaks.watching.buckets import refused
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import Poll, polling, short
from artifacts.leaks.watching.settings import AccessLogWatch

_LATE = timedelta(days=1)
_SEEN = 3_000
_DATE = re.compile(r"(\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)-[0-9A-F]{4,}$")
_FORM = "%Y-%m-%d-%H-%M-%S"
# owner bucket [time] remote requester request-id operation key "request" status error …
_LINE = re.compile(
    r'^\S+ (?P<bucket>\S+) \[(?P<time>[^\]]{1,60})\] (?P<remote>\S+) (?P<requester>\S+) (?P<request>\S+) '
    r'(?P<operation>\S+) (?P<key>\S+) (?:"[^"]*"|-) (?P<status>\S+) '
)  # fmt: skip
_READS = ("REST.GET.OBJECT", "REST.HEAD.OBJECT", "REST.COPY.OBJECT_GET", "REST.SELECT.OBJECT")


class AccessLogSource:
    """Sightings in access logs (see the module)."""

    kind = "access_logs"

    def __init__(self, setting: AccessLogWatch, options: Options) -> None:
        self.name = setting.name
        self._setting = setting
        self._options = options
        self._decoys = {token.key: token.id for token in setting.tokens}

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """Sightings of the next log objects (see `base.Source`)."""
        cursor = cursor or {}
        bucket, _, prefix = self._setting.logs.removeprefix("s3://").partition("/")
        found: dict[str, Candidate] = {}
        notes: list[str] = []
        with polling(self.name, self._options) as poll:
            last, seen = cursor.get("last", ""), list(cursor.get("seen", []))
            if not isinstance(last, str):
                raise poll.error(
                    "the cursor is not one of this source; start it without one", Trouble.SETTING
                )
            objects = self._options.objects_of(bucket, self._setting.endpoint, self._setting.region)
            client = s3_client(objects, poll.asker)
            try:
                names, more = self._names(client, bucket, prefix, last, set(seen), poll)
                for name in names:
                    if len(found) >= limit or not poll.can_ask():
                        more = True
                        break
                    self._read(client, bucket, name, found, notes)
                    seen.append(short(name))
                    last = max(last, name)
            except Exception as error:
                known = refused(poll, error)
                if known is None:
                    raise
                raise known from error
            return Polled(
                candidates=tuple(found.values()),
                cursor={"last": last, "seen": seen[-_SEEN:]},
                more=more,
                limits=poll.limits(),
                notes=tuple(dict.fromkeys(notes))[:20],
            )

    def _names(
        self, client: Any, bucket: str, prefix: str, last: str, seen: set[str], poll: Poll
    ) -> tuple[list[str], bool]:
        """Names of log objects that were not read, oldest first, and whether there are more."""
        behind = _earlier(last)
        out: list[str] = []
        while True:
            rows, more = list_page(client, bucket, prefix, behind)
            out += [row["key"] for row in rows if short(row["key"]) not in seen]
            if not more or len(out) >= 1_000 or not poll.can_ask(2):
                return out, more
            behind = rows[-1]["key"]

    def _read(
        self, client: Any, bucket: str, name: str, found: dict[str, Candidate], notes: list[str]
    ) -> None:
        where = f"s3://{bucket}/{shown(name)}"
        answer = s3_call(where, client.get_object, Bucket=bucket, Key=name)
        text = answer["Body"].read().decode("utf-8", "replace")
        unread = 0
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is None:
                unread += bool(line.strip())
                continue
            made = self._judge(match)
            if made is not None:
                found.setdefault(made.key, made)
        if unread:
            notes.append(f"{where}: {unread} lines are no records of an access log")

    def _judge(self, match: re.Match[str]) -> Candidate | None:
        """A sighting, if the record is one."""
        if match["bucket"] != self._setting.bucket:
            return None
        key = unquote(unquote(match["key"]))  # keys are written percent-encoded twice
        requester, operation, status = match["requester"], match["operation"], match["status"]
        decoy = self._decoys.get(key)
        if decoy is not None:
            if self._expected(requester) and operation.startswith("REST.PUT"):
                return None  # whoever lays it out
            what = f"the decoy {decoy} was asked for"
        elif (
            self._setting.expected
            and operation in _READS
            and status.startswith("2")
            and not self._expected(requester)
        ):
            what = f"{shown(key, 120)} was read by nobody that is expected"
        else:
            return None
        return Candidate(
            source=self.name,
            key=f"access:{self._setting.bucket}/{shown(match['request'], 60)}/{short(match[0])}",
            target="",
            title=shown(f"{what} (by {requester} from {match['remote']})", 400),
            seen_at=self._options.now(),
            detail={
                "bucket": self._setting.bucket,
                "object": shown(key, 300),
                "requester": shown(requester, 200),
                "remote": shown(match["remote"], 60),
                "operation": shown(operation, 60),
                "status": shown(status, 10),
                "time": shown(match["time"], 60),
                **({"decoy": decoy} if decoy else {}),
            },
            sighting=True,
        )

    def _expected(self, requester: str) -> bool:
        return any(fnmatch.fnmatchcase(requester, pattern) for pattern in self._setting.expected)


def _earlier(name: str) -> str:
    """The name that a log object a day before this one would have; a name without a date stands for itself."""
    match = _DATE.search(name)
    if match is None:
        return name
    try:
        date = datetime.strptime(match[1], _FORM).replace(tzinfo=UTC) - _LATE
    except ValueError:
        return name
    return name[: match.start()] + date.strftime(_FORM)
