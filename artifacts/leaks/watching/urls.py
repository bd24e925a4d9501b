"""Named addresses: asked for their headers, nothing downloaded, links on pages not followed.

A new candidate is given when what the server says of the content changes: ETag, else Last-Modified and size. A server that says none
of these cannot be watched by its headers; the first kilobytes are then read and their digest taken instead, which is said.
"""

from __future__ import annotations

import hashlib
from typing import Any

from artifacts.leaks.asking import Answer
from artifacts.leaks.errors import shown
from artifacts.leaks.ranged import public_url
from artifacts.leaks.watching.base import Candidate, Cursor, Digests, Polled, SourceError, Trouble
from artifacts.leaks.watching.options import Options
from artifacts.leaks.watching.polling import Poll, of_status, polling, short, translate
from artifacts.leaks.watching.settings import UrlsWatch

HEAD_BYTES = 64 * 1024
_NO_HEAD = {400, 403, 405, 501}


class UrlsSource:
    """Files behind named addresses (see the module)."""

    kind = "urls"

    def __init__(self, setting: UrlsWatch, options: Options) -> None:
        self.name = setting.name
        self._urls = setting.urls
        self._options = options

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """Addresses whose content changed (see `base.Source`). An address that is not there is quiet; one that fails is not."""
        cursor = cursor or {}
        with polling(self.name, self._options) as poll:
            turn, held = cursor.get("turn", 0), cursor.get("seen", {})
            if not isinstance(turn, int) or not isinstance(held, dict):
                raise poll.error(
                    "the cursor is not one of this source; start it without one", Trouble.SETTING
                )
            places = {short(url): url for url in self._urls}
            seen = {place: mark for place, mark in held.items() if place in places}
            found: list[Candidate] = []
            notes: list[str] = []
            failed: list[str] = []
            first: SourceError | None = None
            done = looked = 0
            for url in (self._urls[(turn + i) % len(self._urls)] for i in range(len(self._urls))):
                if len(found) >= limit or not poll.can_ask(3):
                    break
                done += 1
                try:
                    made = self._look(url, poll, notes)
                    looked += 1
                except Exception as error:
                    known = translate(poll, error)
                    if known is None:
                        raise
                    failed.append(known.message)
                    first = first or known
                    if poll.budget.seconds_left <= 0:
                        break
                    continue
                mark = short(made.key) if made is not None else ""
                if made is not None and seen.get(short(url)) != mark:
                    found.append(made)
                seen[short(url)] = mark
            if first is not None and not looked:
                raise first
            return Polled(
                candidates=tuple(found),
                cursor={"turn": (turn + done) % len(self._urls), "seen": seen},
                more=done < len(self._urls),
                limits=poll.limits(first.retry_after_s if first is not None else None),
                notes=tuple(notes[:20]),
                failed="; ".join(failed[:3]) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else ""),
            )

    def _look(self, url: str, poll: Poll, notes: list[str]) -> Candidate | None:
        """The candidate of what is at an address now; None if nothing is."""
        import httpx

        headers = dict(self._options.url_headers.get(httpx.URL(url).host, {}))
        answer = poll.asker.ask("HEAD", url, headers)
        if (
            answer.status in _NO_HEAD
        ):  # not everybody answers HEAD; a server that ignores the range is hung up on
            ranged = {**headers, "Range": "bytes=0-0"}
            answer = poll.asker.ask("GET", url, ranged, headers_only=True)
        if answer.status in (404, 410):
            return None
        if answer.status not in (200, 206):
            raise of_status(poll, answer.status, public_url(url))
        size = _size(answer)
        mark, digests = self._mark(url, answer, size, headers, poll, notes)
        where = public_url(url)
        place = where if where == url else f"{where[:200]}?{short(url)}"  # a query may hold secrets
        detail: dict[str, Any] = {
            "type": shown(answer.headers.get("content-type", ""), 80),
            "modified": shown(answer.headers.get("last-modified", ""), 40),
        }
        return Candidate(
            source=self.name,
            key=f"{place[:230]}#{mark}",
            target=url,
            title=shown(where, 300),
            size=size,
            seen_at=self._options.now(),
            digests=digests,
            detail={k: v for k, v in detail.items() if v},
        )

    def _mark(
        self,
        url: str,
        answer: Answer,
        size: int | None,
        headers: dict[str, str],
        poll: Poll,
        notes: list[str],
    ) -> tuple[str, tuple[Digests, ...]]:
        """What tells this content from the next at the same address."""
        path = shown(public_url(url), 200)
        etag = answer.headers.get("etag", "").removeprefix("W/").strip('"')
        if etag:
            return short(etag), (Digests(path=path, size=size, etag=shown(etag, 120)),)
        modified = answer.headers.get("last-modified", "")
        if modified:
            return short(f"{modified} {size}"), (Digests(path=path, size=size),)
        ranged = {**headers, "Range": f"bytes=0-{HEAD_BYTES - 1}"}
        body = poll.asker.ask("GET", url, ranged, at_most=HEAD_BYTES).body
        notes.append(
            f"{path}: says neither ETag nor date; a change behind its first {len(body)} bytes is not seen"
        )
        mark = hashlib.sha256(body).hexdigest()
        return short(f"{mark} {size}"), (Digests(path=path, size=size),)


def _size(answer: Answer) -> int | None:
    text = answer.headers.get("content-range", "").rpartition("/")[2] or answer.headers.get(
        "content-length", ""
    )
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
