"""Who may ask for what: roles of principals and the explicit permissions they carry.

`release:hold` is not `release:resume`. A plan's people get, on top of this, what the plan names them for.
"""

from __future__ import annotations

from enum import StrEnum


class Permission(StrEnum):
    """One thing that a principal may do."""

    RELEASE_READ = "release:read"
    RELEASE_CREATE = "release:create"
    RELEASE_HOLD = "release:hold"
    RELEASE_RESUME = "release:resume"
    RELEASE_ABORT = "release:abort"
    RELEASE_ROLLBACK = "release:rollback"
    RELEASE_AMEND = "release:amend"
    RELEASE_BREAK_GLASS = "release:break-glass"
    GATE_SIGN = "gate:sign"
    GATE_RETRY = "gate:retry"
    WINDOW_EXTEND = "window:extend"
    WINDOW_SHORTEN = "window:shorten"
    EVIDENCE_ADD = "evidence:add"
    CONTROL_ATTEST = "control:attest"
    INCIDENT_REPORT = "incident:report"
    INCIDENT_TRIAGE = "incident:triage"
    INCIDENT_CLOSE = "incident:close"
    GRANT_READ = "grant:read"
    GRANT_MAKE = "grant:make"
    GRANT_REVOKE = "grant:revoke"
    ARTIFACT_ADD = "artifact:add"
    ARTIFACT_READ = "artifact:read"
    PARTNER_ADD = "partner:add"
    PARTNER_READ = "partner:read"
    PRINCIPAL_ADD = "principal:add"
    AUDIT_READ = "audit:read"
    ACCESS_REPORT = "access:report"
    KEYS_ROTATE = "keys:rotate"
    EVERYTHING_READ = "everything:read"


class Role(StrEnum):
    """What a principal is to the service (not a role of a plan)."""

    RELEASE_MANAGER = "release_manager"
    APPROVER = "approver"
    MLOPS = "mlops"
    PARTNER = "partner"
    AUDITOR = "auditor"
    OPERATOR = "operator"


_P = Permission
_READ = {_P.RELEASE_READ, _P.ARTIFACT_READ, _P.PARTNER_READ, _P.GRANT_READ}
_CAUTION = {
    _P.RELEASE_HOLD,
    _P.WINDOW_EXTEND,
    _P.INCIDENT_REPORT,
    _P.GRANT_REVOKE,
    _P.RELEASE_ROLLBACK,
    _P.KEYS_ROTATE,
}
_PEOPLE = (
    _READ
    | _CAUTION
    | {
        _P.GATE_SIGN,
        _P.EVIDENCE_ADD,
        _P.CONTROL_ATTEST,
        _P.INCIDENT_TRIAGE,
        _P.INCIDENT_CLOSE,
        _P.RELEASE_RESUME,
        _P.WINDOW_SHORTEN,
        _P.RELEASE_AMEND,
        _P.RELEASE_BREAK_GLASS,
    }
)

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.RELEASE_MANAGER: frozenset(
        _PEOPLE
        | {
            _P.RELEASE_CREATE,
            _P.RELEASE_ABORT,
            _P.GATE_RETRY,
            _P.GRANT_MAKE,
            _P.ARTIFACT_ADD,
            _P.PARTNER_ADD,
            _P.ACCESS_REPORT,
        }
    ),
    Role.APPROVER: frozenset(_PEOPLE),
    Role.MLOPS: frozenset(
        _READ | {_P.RELEASE_CREATE, _P.ARTIFACT_ADD, _P.EVIDENCE_ADD, _P.INCIDENT_REPORT, _P.ACCESS_REPORT}
    ),
    Role.PARTNER: frozenset({_P.GRANT_READ, _P.INCIDENT_REPORT}),
    Role.AUDITOR: frozenset(_READ | {_P.AUDIT_READ, _P.EVERYTHING_READ}),
    Role.OPERATOR: frozenset(
        _READ
        | _CAUTION
        | {
            _P.PRINCIPAL_ADD,
            _P.PARTNER_ADD,
            _P.AUDIT_READ,
            _P.ACCESS_REPORT,
            _P.GATE_RETRY,
            _P.CONTROL_ATTEST,
        }
    ),
}


def permissions_of(roles: list[Role]) -> frozenset[Permission]:
    """All permissions that these roles carry together."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))
