"""Deliveries that go wrong between a caller and the API: twice, answer lost, and once more after later commands.

A transport under every client of the story. Only commands with an `Idempotency-Key` are disturbed: the key is what promises
that nothing is doubled. Whether something was is seen in the records afterwards (`infra.faults.checks`); here only a repeated
delivery that is refused, though the first was accepted, is kept as a violation. A token's answer is never lost on purpose: its
text is shown once, by design, and whoever missed it revokes the token.
"""

from __future__ import annotations

import random
from collections import Counter

import httpx

_LOST = 0.1
_LATE = 0.1
_KEPT = 20
_ONCE = "token-shown-once"


class Deliveries(httpx.BaseTransport):
    """Sends every keyed command twice, loses some answers, and repeats some commands late.

    Args:
        rng: decides which.
    """

    def __init__(self, rng: random.Random) -> None:
        self._http = httpx.HTTPTransport()
        self._rng = rng
        self._earlier: list[httpx.Request] = []
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        #: Idempotency key → the events that the answer told of, of every command that was answered.
        self.acknowledged: dict[str, list[str]] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, and, if it is a command, disturb its delivery."""
        if request.method == "GET" or "Idempotency-Key" not in request.headers:
            return self._http.handle_request(request)
        request.read()  # so that its bytes can be sent again
        answer = self._read(request)
        if not answer.is_success:
            return answer
        self._note(request, answer)
        self._again(request, "twice")
        if self._earlier and self._rng.random() < _LATE:
            self._again(self._rng.choice(self._earlier), "late")
        self._earlier = [*self._earlier[1 - _KEPT :], request]
        lost = self._rng.random() < _LOST
        if lost and not request.url.path.endswith("/tokens"):
            self.counts["answer lost"] += 1
            raise httpx.ReadError("the answer was lost on purpose", request=request)
        return answer

    def _note(self, request: httpx.Request, answer: httpx.Response) -> None:
        if "json" in answer.headers.get("Content-Type", "") and request.url.path.startswith("/v1/releases/"):
            told = answer.json()
            if isinstance(told, dict) and told.get("events"):
                self.acknowledged[request.headers["Idempotency-Key"]] = list(told["events"])

    def _read(self, request: httpx.Request) -> httpx.Response:
        answer = self._http.handle_request(request)
        answer.read()
        return answer

    def _again(self, request: httpx.Request, kind: str) -> None:
        try:
            answer = self._read(request)
        except httpx.TransportError:
            self.counts[f"{kind}, unanswered"] += 1
            return
        self.counts[kind] += 1
        if _ONCE in answer.text and request.url.path.endswith("/tokens"):
            return  # the text of a token is shown once; that no second token was made is what is asked for
        if answer.is_client_error and answer.status_code not in {408, 429}:
            what = f"{request.method} {request.url.path} delivered {kind} was refused: {answer.status_code} {answer.text}"
            self.violations.append(what[:600])

    def close(self) -> None:
        """Clients share it, so that none of them may close it; see `end`."""

    def end(self) -> None:
        """Give back its connections."""
        self._http.close()
