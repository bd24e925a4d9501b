"""What people sign: in-toto statements (v1) with one predicate type per kind of decision.

A statement names its subjects by digest (https://in-toto.io/Statement/v1); the predicate (`predicates`) says what is
decided about them.

Invariants
- A statement has exactly one byte form (RFC 8785, UTC whole seconds); `parse` refuses every other spelling, so a
  digest of a statement names its meaning.
- Every statement has a nonce of 128 random bits and an expiry. Who signed it is said by the verified key, never by
  the statement; `person` in it says whom the signer meant to be, and must be the owner of that key.
- This module verifies no signature (see `signing`) and knows no rule of a gate (see `orchestrator.domain`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Generic, Self, TypeVar

from pydantic import Field, model_validator

from orchestrator.trust.encoding import canonical_json, parse_object, sha256_digest
from orchestrator.trust.errors import Expired, Malformed, NotYetValid, StatementMismatch
from orchestrator.trust.predicates import (
    PREDICATE_BASE,
    PREDICATES,
    Acceptance,
    Delegation,
    Endorsement,
    Invitation,
    KeyRegistration,
    Predicate,
    Receipt,
    RecipientRegistration,
    SignOff,
    StrictModel,
    Subject,
    kind_name,
    new_nonce,
    write_instant,
)

__all__ = [
    "CLOCK_SKEW",
    "PREDICATES",
    "PREDICATE_BASE",
    "STATEMENT_TYPE",
    "Acceptance",
    "Delegation",
    "Endorsement",
    "Invitation",
    "KeyRegistration",
    "Predicate",
    "Receipt",
    "RecipientRegistration",
    "SignOff",
    "Statement",
    "Subject",
    "new_nonce",
    "parse",
    "parse_any",
    "write_instant",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
CLOCK_SKEW = timedelta(minutes=5)
"""How far a signer's clock may be ahead of the verifier's."""

_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")

P = TypeVar("P", bound=Predicate)


class Statement(StrictModel, Generic[P]):
    """Subjects and a predicate. `to_bytes` is what is signed.

    Attributes:
        subjects: what it is about; at least one, names unique.
        predicate: what is said.
    """

    subjects: tuple[Subject, ...] = Field(min_length=1, max_length=1000)
    predicate: P

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len({subject.name for subject in self.subjects}) != len(self.subjects):
            raise Malformed("two subjects have one name", where="statement")
        return self

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are the payload of an envelope."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in self.subjects],
                "predicateType": self.predicate.TYPE,
                "predicate": self.predicate.model_dump(mode="json", exclude_none=True),
            }
        )

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical bytes: the statement's name in the log and in other statements."""
        return sha256_digest(self.to_bytes())

    def check_time(self, now: datetime, *, skew: timedelta = CLOCK_SKEW) -> None:
        """Refuse a statement that is expired or not yet valid.

        Args:
            now: the verifier's clock.
            skew: how far the signer's clock may be ahead.

        Raises:
            Expired: `now` is at or past `expires_at`.
            NotYetValid: issued in the future.
        """
        where = kind_name(type(self.predicate))
        if now >= self.predicate.expires_at:
            until = write_instant(self.predicate.expires_at)
            raise Expired(f"expired at {until}", where=where, remedy="sign again")
        if self.predicate.issued_at > now + skew:
            at = write_instant(self.predicate.issued_at)
            raise NotYetValid(
                f"was issued in the future, at {at}", where=where, remedy="set the signer's clock"
            )

    def require(self, *, subjects: Iterable[Subject] | None = None, **expected: Any) -> None:
        """Refuse a statement that says something else than what is at stake.

        Args:
            subjects: the subjects that it must have, in any order, or None to leave them unchecked.
            expected: predicate fields and the values that they must have.

        Raises:
            StatementMismatch: naming every field that differs.
            TypeError: a field that the predicate does not have, a mistake of the caller.
        """
        wrong: dict[str, tuple[Any, Any]] = {}
        if subjects is not None:
            want = {(s.name, s.sha256) for s in subjects}
            have = {(s.name, s.sha256) for s in self.subjects}
            if want != have:
                wrong["subjects"] = (sorted(have), sorted(want))
        for name, value in expected.items():
            if name not in type(self.predicate).model_fields:
                raise TypeError(f"{type(self.predicate).__name__} has no field {name}")
            actual = getattr(self.predicate, name)
            if actual != value:
                wrong[name] = (actual, value)
        if wrong:
            told = "; ".join(
                f"{name} is {_brief(have)}, not {_brief(want)}" for name, (have, want) in wrong.items()
            )
            raise StatementMismatch(
                f"says something else than what is at stake: {told}",
                where=kind_name(type(self.predicate)),
                remedy="look at what stands now and sign that",
                fields=tuple(wrong),
            )


def parse(payload: bytes, kind: type[P]) -> Statement[P]:
    """Read a statement of one kind from a payload (verify the envelope first).

    Raises:
        Malformed: not such a statement in its one canonical spelling.
        StatementMismatch: a statement of another predicate type.
    """
    where = "statement"
    raw = parse_object(payload, where=where)
    if raw.get("_type") != STATEMENT_TYPE or set(raw) != {"_type", "subject", "predicateType", "predicate"}:
        raise Malformed("is not an in-toto statement of version 1", where=where)
    if raw["predicateType"] != kind.TYPE:
        raise StatementMismatch(
            f"has the predicate type {str(raw['predicateType'])[:120]!r}, not {kind.TYPE}",
            where=where,
            fields=("predicateType",),
        )
    _instants_as_written(raw["predicate"])
    statement = Statement[kind](  # type: ignore[valid-type]
        subjects=tuple(_subject(entry) for entry in _list(raw["subject"])),
        predicate=kind.model_validate(raw["predicate"]),
    )
    if statement.to_bytes() != payload:
        raise Malformed(
            "is not in its canonical spelling", where=kind_name(kind), remedy="sign it with `sluice sign`"
        )
    return statement


def parse_any(payload: bytes) -> Statement[Any]:
    """Read a statement of whichever known kind it is.

    Raises:
        Malformed: not a statement of a known kind in its canonical spelling.
    """
    kind = PREDICATES.get(str(parse_object(payload, where="statement").get("predicateType")))
    if kind is None:
        raise Malformed("has a predicate type that is not known here", where="statement")
    return parse(payload, kind)


def _instants_as_written(predicate: Any) -> None:
    """Keep pydantic from reading numbers as instants."""
    if not isinstance(predicate, dict):
        raise Malformed("the predicate is not an object", where="statement")
    for name in ("issued_at", "expires_at"):
        value = predicate.get(name)
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise Malformed(f"{name} is not an instant such as 2026-11-23T09:00:00Z", where="statement")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed("`subject` is not a list", where="statement")
    return value


def _subject(entry: Any) -> Subject:
    if (
        not isinstance(entry, dict)
        or set(entry) != {"name", "digest"}
        or not isinstance(entry["digest"], dict)
    ):
        raise Malformed("a subject holds `name` and `digest`", where="statement")
    if set(entry["digest"]) != {"sha256"}:
        raise Malformed("a subject's digest is its `sha256` alone", where="statement")
    return Subject.model_validate({"name": entry["name"], "sha256": entry["digest"]["sha256"]})


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
