"""Partners: who they are, the terms that they accepted, and the keys that their envelopes are made for.

A key is an age recipient; it is found by its digest, which plans may pin. Every change is an entry of the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.plan import Plan, Step, recipient_digest
from orchestrator.domain.values import Digest, Frozen, Instant, Name
from orchestrator.records import audit
from orchestrator.records.database import insert_new
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import PartnerKeyRow, PartnerRow, PartnerTermsRow, table


class PartnerKey(Frozen):
    """An age recipient of a partner. `statement`: the signed envelope that it was registered with, if there is one."""

    partner: Name
    digest: Digest
    recipient: str
    statement: str | None
    added_at: Instant
    added_by: Name
    revoked_at: Instant | None
    revoked_by: Name | None


class AcceptedTerms(Frozen):
    """Terms that a partner accepted, by name or digest."""

    terms: str
    at: Instant
    by: Name


class Partner(Frozen):
    """An outside organisation."""

    id: Name
    name: str
    active: bool
    terms: list[AcceptedTerms]
    keys: list[PartnerKey]
    created_at: Instant
    created_by: Name


def create(session: Session, partner: str, name: str, *, at: datetime, by: str) -> Partner:
    """Add a partner.

    Raises:
        Conflict: there is one of that id.
    """
    row = {"id": partner, "name": name, "active": True, "created_at": at, "created_by": by}
    if not insert_new(session, table(PartnerRow), row):
        raise Conflict(f"there is a partner {partner} already")
    _log(session, "partner_added", partner, at, by, name=name)
    return get(session, partner)


def get(session: Session, partner: str) -> Partner:
    """A partner with terms and keys, revoked ones too.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(PartnerRow).where(col(PartnerRow.id) == partner)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"there is no partner {partner}")
    return _whole(session, [row])[0]


def list_partners(session: Session, *, cursor: str | None = None, limit: int = 50) -> Page[Partner]:
    """Partners by id.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "partners", str)
    statement = after(select(PartnerRow), [col(PartnerRow.id)], key, down=False).limit(limit + 1)
    rows = session.execute(statement).scalars().all()
    whole = {partner.id: partner for partner in _whole(session, rows)}
    return cut(rows, limit, lambda row: whole[row.id], lambda row: encode_cursor("partners", row.id))


def set_active(session: Session, partner: str, active: bool, *, at: datetime, by: str) -> Partner:
    """Switch a partner off (no new grant is made for it) or on again.

    Raises:
        NotFound: there is none.
    """
    if get(session, partner).active != active:
        session.execute(update(table(PartnerRow)).where(col(PartnerRow.id) == partner).values(active=active))
        _log(session, "partner_activated" if active else "partner_deactivated", partner, at, by)
    return get(session, partner)


def accept_terms(session: Session, partner: str, terms: str, *, at: datetime, by: str) -> Partner:
    """The partner accepts terms; accepting them again changes nothing.

    Raises:
        NotFound: there is no such partner.
    """
    get(session, partner)
    row = {"partner": partner, "terms": terms, "at": at, "by": by}
    if insert_new(session, table(PartnerTermsRow), row):
        _log(session, "terms_accepted", partner, at, by, terms=terms)
    return get(session, partner)


def add_key(
    session: Session, partner: str, recipient: str, *, statement: str | None = None, at: datetime, by: str
) -> PartnerKey:
    """Add an age recipient. The same one again is the same key; one that was revoked does not come back.

    Raises:
        NotFound: there is no such partner.
        Conflict: the key was revoked before, or belongs to another partner.
    """
    get(session, partner)
    digest = recipient_digest(recipient)
    owner = (
        session.execute(select(PartnerKeyRow).where(col(PartnerKeyRow.digest) == digest)).scalars().first()
    )
    if owner is not None and owner.partner != partner:
        raise Conflict("that key belongs to another partner; each needs one of its own")
    if owner is not None and owner.revoked_at is not None:
        raise Conflict("that key was revoked; make a new one")
    row = {
        "partner": partner,
        "digest": digest,
        "recipient": recipient,
        "statement": statement,
        "added_at": at,
        "added_by": by,
    }
    if owner is None:
        session.execute(insert(table(PartnerKeyRow)).values(**row))
        _log(session, "partner_key_added", partner, at, by, key=digest)
    return _key(session, partner, digest)


def revoke_key(session: Session, partner: str, digest: str, *, at: datetime, by: str) -> PartnerKey:
    """Revoke a key: no envelope is made for it from here on. What it can open already stays readable.

    Raises:
        NotFound: the partner has no such key.
    """
    found = _key(session, partner, digest)
    if found.revoked_at is None:
        session.execute(
            update(table(PartnerKeyRow))
            .where(col(PartnerKeyRow.partner) == partner, col(PartnerKeyRow.digest) == digest)
            .values(revoked_at=at, revoked_by=by)
        )
        _log(session, "partner_key_revoked", partner, at, by, key=digest)
    return _key(session, partner, digest)


def standing(session: Session, partners: Sequence[str]) -> dict[str, Partner]:
    """Those of these partners that are known, by id, with terms and keys (oldest first, revoked ones too)."""
    rows = session.execute(select(PartnerRow).where(col(PartnerRow.id).in_(list(partners)))).scalars().all()
    return {partner.id: partner for partner in _whole(session, rows)}


def usable_key(plan: Plan, name: str, partner: Partner | None) -> str | None:
    """The digest of the key that a partner's envelopes can be made for; None while there is none.

    Where the plan pins a recipient, no other will do. Pinned by its digest alone, the key itself has to be registered;
    pinned as a whole, the plan has it.
    """
    keys = [] if partner is None else partner.keys
    usable = [key.digest for key in keys if key.revoked_at is None]
    pinned = plan.partners[name].recipient if name in plan.partners else None
    if pinned is None:
        return usable[-1] if usable and plan.partner_keys == "registered" else None
    digest = recipient_digest(pinned)
    revoked = digest in {key.digest for key in keys} - set(usable)
    return digest if not revoked and (pinned != digest or digest in usable) else None


def not_ready(plan: Plan, step: Step, name: str, partner: Partner | None) -> list[str]:
    """What a partner in a step's audience still lacks for a grant, in words; empty when it is ready."""
    missing = []
    groups = [plan.partner_groups[group] for group in step.partner_groups]
    asked = sorted({group.terms for group in groups if name in group.partners and group.terms is not None})
    accepted = set() if partner is None else {found.terms for found in partner.terms}
    if partner is not None and not partner.active:
        missing.append(f"{name} is switched off")
    missing += [f"{name} has not accepted the terms {terms}" for terms in asked if terms not in accepted]
    if plan.keyed_components(step, "audience") and usable_key(plan, name, partner) is None:
        pinned = plan.partners[name].recipient if name in plan.partners else None
        if pinned is not None:
            missing.append(
                f"the key {recipient_digest(pinned)} that the plan pins is not registered, or was revoked"
            )
        elif plan.partner_keys == "registered":
            missing.append(f"{name} has registered no key")
        else:
            missing.append(f"the plan pins no key of {name}, and takes only keys that it pins; amend it")
    return missing


def _key(session: Session, partner: str, digest: str) -> PartnerKey:
    statement = select(PartnerKeyRow).where(
        col(PartnerKeyRow.partner) == partner, col(PartnerKeyRow.digest) == digest
    )
    row = session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"the partner {partner} has no key {digest}")
    return _key_of(row)


def _key_of(row: PartnerKeyRow) -> PartnerKey:
    return PartnerKey(**{name: getattr(row, name) for name in PartnerKey.model_fields})


def _whole(session: Session, rows: Sequence[PartnerRow]) -> list[Partner]:
    names = [row.id for row in rows]
    fresh = {"populate_existing": True}
    keys = (
        session.execute(
            select(PartnerKeyRow)
            .where(col(PartnerKeyRow.partner).in_(names))
            .order_by(col(PartnerKeyRow.added_at), col(PartnerKeyRow.digest))
            .execution_options(**fresh)
        )
        .scalars()
        .all()
    )
    terms = (
        session.execute(
            select(PartnerTermsRow)
            .where(col(PartnerTermsRow.partner).in_(names))
            .order_by(col(PartnerTermsRow.at), col(PartnerTermsRow.terms))
            .execution_options(**fresh)
        )
        .scalars()
        .all()
    )
    active = select(col(PartnerRow.id), col(PartnerRow.active)).where(col(PartnerRow.id).in_(names))
    actives = {row.id: row.active for row in session.execute(active)}
    return [
        Partner(
            id=row.id,
            name=row.name,
            active=actives[row.id],
            terms=[AcceptedTerms(terms=t.terms, at=t.at, by=t.by) for t in terms if t.partner == row.id],
            keys=[_key_of(key) for key in keys if key.partner == row.id],
            created_at=row.created_at,
            created_by=row.created_by,
        )
        for row in rows
    ]


def _log(session: Session, action: str, partner: str, at: datetime, by: str, **more: Any) -> None:
    audit.append(session, "admin", {"action": action, "actor": by, "partner": partner, **more}, at=at)
