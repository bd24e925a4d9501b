"""What both clients share, without IO: how a call is written, what an answer means, whether and when it is sent again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar, cast

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.client import models as m
from orchestrator.client.calls import Answer, Call, shown
from orchestrator.client.errors import ClientError, NotTheApi, Unreachable, refused

ATTEMPTS = 4
LONGEST_PAUSE = 20.0
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_AGAIN = frozenset({429, 502, 503, 504})
_CURSORS = {"next_cursor": "cursor", "next_after": "after", "next_start": "start"}

Token = str | Callable[[], str] | None
Item_co = TypeVar("Item_co", covariant=True)


class Paged(Protocol[Item_co]):
    """An answer with a list in it that may go on."""

    @property
    def items(self) -> Sequence[Item_co]:
        """One page."""
        ...


@dataclass(slots=True)
class Sent(Generic[Answer]):
    """One call with its idempotency key, and how often it was tried."""

    call: Call[Answer]
    token: Token
    tried: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.headers = {name: value for name, value in self.call.headers.items() if value is not None}
        if self.call.keyed:
            self.headers.setdefault("Idempotency-Key", secrets.token_hex(16))

    def request(self) -> dict[str, Any]:
        """The arguments for `httpx`; a token that is asked for is asked for each time, since it may be short-lived."""
        self.tried += 1
        call = self.call
        query = {name: shown(value) for name, value in call.query.items() if value is not None}
        request: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "params": query,
            "headers": {**self.headers, **bearer(self.token)},
        }
        if call.sends == "json":
            request["json"] = call.body
        elif call.sends in {"form", "multipart"}:
            request["data"] = call.body
            if call.files:
                request["files"] = dict(call.files)
        return request

    def lost(self, base: str, error: httpx.TransportError) -> float:
        """After no answer came: the seconds to wait before it is sent again.

        Raises:
            Unreachable: it was tried often enough, or might be done twice.
        """
        safe = self.call.keyed or self.call.method == "GET" or isinstance(error, httpx.ConnectError)
        if not safe or self.tried >= ATTEMPTS:
            told = (
                "no answer in time"
                if isinstance(error, httpx.TimeoutException)
                else str(error) or "no answer"
            )
            raise Unreachable(f"{base}: {told}") from None
        return 0.25 * 2.0**self.tried

    def judged(self, answer: httpx.Response) -> float | None:
        """None for a success; the seconds to wait before it is sent again.

        Raises:
            Refused: it was refused.
            NotTheApi: a redirect; they are not followed, since a token goes to the configured address alone.
        """
        if answer.is_success:
            return None
        if answer.status_code in _AGAIN and self.tried < ATTEMPTS:
            told = answer.headers.get("Retry-After", "")
            return min(float(told) if told.isdigit() else 0.25 * 2.0**self.tried, LONGEST_PAUSE)
        raise refusal(answer)

    def read(self, content: bytes) -> Answer:
        """What a success says, in its type.

        Raises:
            NotTheApi: it is of another form.
        """
        kind: Any = self.call.answer
        if kind is type(None):
            return cast("Answer", None)
        if kind is bytes:
            return cast("Answer", content)
        try:
            if kind is str:
                return cast("Answer", content.decode())
            assert issubclass(kind, BaseModel)
            return cast("Answer", kind.model_validate_json(content))
        except (ValidationError, UnicodeDecodeError) as error:
            raise NotTheApi(f"{self.call.operation}: an answer of another form: {str(error)[:500]}") from None


def bearer(token: Token) -> dict[str, str]:
    """The header that says who asks."""
    text = token() if callable(token) else token
    return {"Authorization": f"Bearer {text}"} if text else {}


def options(url: str) -> dict[str, Any]:
    """How an `httpx` client is made for a service.

    Raises:
        ClientError: the token would travel in clear.
    """
    parsed = httpx.URL(url)
    if parsed.scheme != "https" and parsed.host not in {"127.0.0.1", "localhost", "::1", "testserver"}:
        raise ClientError(f"{url}: tokens travel over https alone (or to this machine)")
    headers = {"User-Agent": f"sluice-client/{version('sluice-release')}", "Accept": "application/json"}
    return {"base_url": url, "headers": headers, "timeout": TIMEOUT, "follow_redirects": False}


def refusal(answer: httpx.Response) -> ClientError:
    """What a response that is no success says."""
    if answer.is_redirect:
        return NotTheApi(f"{answer.url} sends elsewhere; redirects are not followed: correct the address")
    try:
        document = answer.json()
    except ValueError:
        document = None
    told = document if isinstance(document, dict) else {}
    return refused(answer.status_code, told, answer.headers.get("X-Request-Id"))


def following(call: Call[Answer], page: Answer) -> Call[Answer] | None:
    """The call for the next page; None behind the last one."""
    for name, parameter in _CURSORS.items():
        cursor = getattr(page, name, None)
        if cursor is not None and getattr(page, "items", None):
            if call.query.get(parameter) == cursor:
                return None
            return Call(
                call.operation,
                call.method,
                call.path,
                call.answer,
                query={**call.query, parameter: cursor},
                headers=call.headers,
            )
    return None


class Events:
    """Server-sent events, line by line; it remembers the last number, behind which a cut stream goes on."""

    def __init__(self, after: int) -> None:
        self.after = after
        self._number, self._data = "", list[str]()

    def headers(self, token: Token) -> Mapping[str, str]:
        """For the request that goes on behind the last event."""
        return {"Accept": "text/event-stream", "Last-Event-ID": str(self.after), **bearer(token)}

    def line(self, line: str) -> m.EventView | None:
        """Take up one line; the event that it ends, if it ends one."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._number = value
            elif name == "data":
                self._data.append(value)
            return None
        number, data = self._number, self._data
        self._number, self._data = "", []
        if not data or not number.isdigit():
            return None
        self.after = int(number)
        return m.EventView.model_validate(json.loads("\n".join(data)))
