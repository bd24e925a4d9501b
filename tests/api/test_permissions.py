"""Every operation by every role by one's own and another's release: who may, who may not, and for whom nothing is there.

A refused caller is refused before anything about the request is looked at, so requests here are empty: who may gets past the
permission (to 200, or to what is wrong with an empty request), who may not gets 403, and a partner gets 404 for a release that
no grant of its names, whatever the operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.event import listen, remove

from tests.api.conftest import Api, Sealed, made_api

WHO = {
    "manager": "mia",
    "approver": "sam",
    "mlops": "ci",
    "partner": "uni-account",
    "auditor": "ann",
    "operator": "olaf",
}
EVERYBODY = "manager approver mlops partner auditor operator"
INSIDE = "manager approver mlops auditor operator"
PEOPLE = "manager approver"
CAUTIOUS = "manager approver operator"

#: operation → the roles that may; of operations on a release, for a release that they may know of
MAY: dict[str, str] = {
    "createRelease": "manager mlops",
    "listReleases": INSIDE,
    "getRelease": INSIDE,
    "getPlan": INSIDE,
    "listSteps": INSIDE,
    "getStep": INSIDE,
    "getGate": INSIDE,
    "previewCommand": INSIDE,
    "signOff": PEOPLE,
    "withdrawSignOff": PEOPLE,
    "invite": PEOPLE,
    "listInvitations": INSIDE,
    "revokeInvitation": PEOPLE,
    "retryEntry": "manager operator",
    "breakGlass": PEOPLE,
    "extendWindow": CAUTIOUS,
    "shortenWindow": PEOPLE,
    "reportControl": CAUTIOUS,
    "listEvidence": INSIDE,
    "submitEvidence": "manager approver mlops",
    "submitAssessment": "manager approver mlops",
    "uploadEvidence": "manager approver mlops",
    "getEvidenceDocument": INSIDE,
    "hold": CAUTIOUS,
    "resume": PEOPLE,
    "listIncidents": INSIDE,
    "reportIncident": "manager approver mlops partner operator",
    "triageIncident": PEOPLE,
    "closeIncident": PEOPLE,
    "amendPlan": PEOPLE,
    "endorse": INSIDE,  # what is proposed decides
    "closeReview": PEOPLE,
    "rollBack": CAUTIOUS,
    "abort": "manager",
    "delegate": PEOPLE,
    "reportAccess": "manager mlops operator",
    "listAllIncidents": INSIDE,
    "listGrants": EVERYBODY,
    "listReleaseGrants": EVERYBODY,
    "makeGrant": "manager",
    "revoke": CAUTIOUS,
    "getGrant": EVERYBODY,
    "getGrantManifest": EVERYBODY,
    "getEnvelope": EVERYBODY,  # then its holder alone: tests/api/test_walk.py
    "makeLinks": EVERYBODY,  # then its holder alone: tests/api/test_links.py
    "rotateKeys": CAUTIOUS,
    "listRotations": INSIDE,
    "listCopies": EVERYBODY,  # a partner its own
    "addReceipt": EVERYBODY,  # then the grant's holder alone
    "listReceipts": EVERYBODY,
    "createPartner": "manager operator",
    "listPartners": INSIDE,
    "getPartner": EVERYBODY,  # a partner its own
    "changePartner": "manager operator",
    "addPartnerKey": "manager partner operator",
    "revokePartnerKey": "manager partner operator",
    "acceptTerms": "partner",
    "registerArtifact": "manager mlops",
    "listArtifacts": INSIDE,
    "getArtifact": INSIDE,
    "getManifest": INSIDE,
    "bindArtifact": "manager mlops",
    "startIngest": "manager mlops",
    "getIngest": "manager mlops auditor",
    "getHub": INSIDE,
    "listEvents": INSIDE,
    "listAllEvents": INSIDE,
    "streamEvents": INSIDE,
    "streamAllEvents": INSIDE,
    "getMe": EVERYBODY,
    "listPending": EVERYBODY,
    "createPrincipal": "operator",
    "listPrincipals": "auditor operator",
    "getPrincipal": "auditor operator",
    "changePrincipal": "operator",
    "issueToken": "operator",
    "listTokens": "auditor operator",  # and everybody their own
    "revokeToken": "operator",
    "listMonitors": INSIDE,
    "getMonitorKey": INSIDE,
    "listSuspects": "manager approver auditor",
    "getVerdict": "manager approver auditor",
    "checkWhole": PEOPLE,
    "listParents": INSIDE,
    "addParent": PEOPLE,
    "dropParent": PEOPLE,
    "reportSighting": "manager approver mlops partner operator",
    "listReports": "manager approver auditor",
    "addWebhook": EVERYBODY,  # each their own
    "listWebhooks": EVERYBODY,
    "getWebhook": EVERYBODY,
    "removeWebhook": EVERYBODY,
    "switchWebhook": EVERYBODY,
    "rotateWebhook": EVERYBODY,
    "listDeliveries": EVERYBODY,
    "redriveWebhook": EVERYBODY,
    "replayWebhook": EVERYBODY,
    "addChannel": EVERYBODY,  # each their own
    "listChannels": EVERYBODY,
    "getChannel": EVERYBODY,
    "changeChannel": EVERYBODY,
    "removeChannel": EVERYBODY,
    "testChannel": EVERYBODY,
    "listNotices": EVERYBODY,
    "redriveNotices": EVERYBODY,
    "listAuditEntries": "auditor operator",
    "getAuditEntry": "auditor operator",
    "getAuditProof": "auditor operator",
    "getCheckpoint": "auditor operator",
    "getInclusionProof": "auditor operator",
    "getConsistencyProof": "auditor operator",
    "exportAudit": "auditor operator",
}
INVITED = {
    "showInvitation",
    "signInvited",
    "withdrawInvited",
}  # the one-time key opens it: tests/api/test_invitations.py
OPEN_TO_ALL = INVITED | {
    "healthz",
    "readyz",
    "getSignIn",
    "backChannelLogout",
    "reportLeak",
    "receiveFindings",
}
NAMES = {
    "step": "query",
    "control": "rate_limit",
    "digest": "sha256:" + "0" * 64,
    "incident": "none",
    "proposal": "none",
    "review": "none",
    "grant": "none",
    "artifact": "none",
    "partner": "uni",
    "ingest": "none",
    "principal": "nobody",
    "webhook": "wh-0000000000000000",
    "channel": "nc-0000000000000000",
    "token": "tok-0000000000000000",
    "index": "0",
    "parent": "none",
    "monitor": "none",
    "invitation": "0" * 64,
}
#: What a session opens: pages of the console, and what their scripts send.
CONSOLE = [
    ("GET", "/console"),
    ("GET", "/console/releases"),
    ("GET", "/console/releases/{release}"),
    ("GET", "/console/releases/{release}/steps/{step}"),
    ("GET", "/console/passkey"),
    ("POST", "/console/passkey"),
    ("POST", "/console/passkey/options"),
    ("POST", "/console/prepare"),
    ("POST", "/console/decide"),
    ("GET", "/sign-in/session"),
]
OWN, OTHER, NOWHERE = "seen-1", "hide-1", "gone-1"


@pytest.fixture(scope="module")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory, sealed: Sealed) -> Iterator[Api]:
    """Release `seen-1`, of which uni has a grant; `hide-1`, of which it has none; `gone-1` is nowhere."""
    with made_api(template, tmp_path_factory.mktemp("world") / "records.db") as api:
        api.to_demo(sealed, OWN)
        api.ok(api.create(OTHER))
        yield api


def operations(api: Api) -> Iterator[tuple[str, str, str]]:
    for path, methods in api.app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield operation["operationId"], method.upper(), path


def ask(api: Api, who: str | None, method: str, path: str, release: str) -> tuple[int, str]:
    """Status and body of an empty request; streams are asked for a place that is malformed."""
    filled = re.sub(r"\{(\w+)\}", lambda found: {**NAMES, "release": release}[found[1]], path)
    more = {"headers": {"Last-Event-ID": "x"}} if filled.endswith("/stream") else {}
    if method in {"POST", "PUT", "PATCH"}:
        more["json"] = {"nothing": "of this kind"}
    found = api.call(who, method, filled, **more)
    return found.status_code, found.text.replace(release, "RELEASE")


def test_the_table_knows_every_operation(world: Api) -> None:
    assert {name for name, _, _ in operations(world)} == set(MAY) | OPEN_TO_ALL


#: Routes outside the published contract: pages and what their forms send. Each is tried below or in the test that is named.
PAGES = {
    "GET /openapi.json",  # the contract itself, the same for everybody
    "GET /docs",
    "GET /docs/start.js",
    "GET /docs/static",
    "GET /console/static",
    "GET /report",  # tests/api/test_leaks.py
    "POST /report",
    "GET /invitation/{invitation}",  # tests/api/test_invitations.py
    "GET /console/sign-in",
    "POST /console/sign-in",
    "GET /sign-in",  # tests/api/test_sign_in.py
    "GET /sign-in/callback",
    "POST /sign-in/out",
}


def routes(given: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of everything that answers, those of included routers too; a folder of files is a GET."""
    for route in given:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner.routes, prefix + route.include_context.prefix)
        else:
            for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}:
                yield method, prefix + route.path


def test_no_route_is_left_out_of_the_tables(world: Api) -> None:
    there = {f"{method} {path}" for method, path in routes(world.app.routes)}
    told = {f"{method} {path}" for _, method, path in operations(world)}
    console = {f"{method} {path}" for method, path in CONSOLE}
    assert there - told == PAGES | console
    assert told <= there


@pytest.mark.parametrize("role", list(WHO))
def test_who_may_does_and_who_may_not_is_refused(world: Api, role: str) -> None:
    wrong = {}
    for name, method, path in operations(world):
        if name in OPEN_TO_ALL:
            continue
        status, text = ask(world, WHO[role], method, path, OWN)
        allowed = role in MAY[name].split()
        fits = status not in {401, 403} if allowed else status == 403
        if not fits or status >= 500:
            wrong[name] = (allowed, status, text[:200])
    assert not wrong


def test_an_auditor_reads_everything_and_changes_nothing_but_their_own(world: Api) -> None:
    own = {
        name
        for name, _, _ in operations(world)
        if "Webhook" in name or "Channel" in name or "Notices" in name
    }
    own |= {"addReceipt", "makeLinks"}  # then for the holder of the grant alone
    for name, method, _ in operations(world):
        if name not in OPEN_TO_ALL | own:
            asks = method == "GET" or name in {"previewCommand", "endorse"}  # what is proposed decides
            assert ("auditor" in MAY[name].split()) == asks, name


@pytest.mark.parametrize("role", [role for role in WHO if role != "partner"])
def test_insiders_see_releases_of_others_too(world: Api, role: str) -> None:
    for name, method, path in operations(world):
        if "{release}" in path and role in MAY[name].split():
            assert ask(world, WHO[role], method, path, OTHER)[0] not in {401, 403}, name
        if "{release}" in path:
            assert ask(world, WHO[role], method, path, NOWHERE)[0] in {403, 404, 422, 428}, name


def test_for_a_partner_a_release_that_does_not_name_it_is_not_there(world: Api) -> None:
    """Not its name, not its existence: the same status and the same words as for one that is nowhere."""
    for name, method, path in operations(world):
        if "{release}" not in path:
            continue
        hidden, absent = (ask(world, "uni-account", method, path, release) for release in (OTHER, NOWHERE))
        assert hidden[0] == 404, (name, hidden)
        assert hidden == absent, name


def test_for_a_partner_other_partners_are_not_there(world: Api) -> None:
    for method, path in (
        ("GET", ""),
        ("POST", "/keys"),
        ("POST", "/terms"),
        ("DELETE", "/keys/sha256:" + "0" * 64),
    ):
        body = {"json": {"recipient": "age1pq1" + "q" * 60, "terms": "x"}} if method == "POST" else {}
        found = [
            world.call("uni-account", method, f"/v1/partners/{name}{path}", **body) for name in ("ngo", "nix")
        ]
        if method == "POST":
            body["json"].pop("terms" if path == "/keys" else "recipient")
            found = [
                world.call("uni-account", method, f"/v1/partners/{n}{path}", **body) for n in ("ngo", "nix")
            ]
        assert [one.status_code for one in found] == [404, 404], path
        assert found[0].text.replace("ngo", "nix") == found[1].text
    assert world.get("uni-account", "/v1/grants", params={"holder": "ngo"}).status_code == 404


def test_without_a_token_and_with_a_wrong_one_nothing_is_told(world: Api) -> None:
    wrong = {"Authorization": "Bearer slt_" + "a" * 43}
    for name, method, path in operations(world):
        if name in OPEN_TO_ALL:
            continue
        assert ask(world, None, method, path, OWN)[0] == 401, name
        filled = re.sub(r"\{(\w+)\}", lambda found: {**NAMES, "release": OWN}[found[1]], path)
        refused = world.call(None, method, filled, headers=wrong)
        assert refused.status_code == 401, name
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_everybody_manages_their_own_tokens_and_nobody_elses(world: Api) -> None:
    mine = world.ok(world.get("sam", "/v1/principals/sam/tokens"))["items"]
    assert [token["label"] for token in mine] == ["test"]
    assert "slt_" not in str(mine)
    assert world.get("sam", "/v1/principals/lea/tokens").status_code == 403
    theirs = world.ok(world.get("olaf", "/v1/principals/lea/tokens"))["items"][0]["id"]
    assert world.call("sam", "DELETE", f"/v1/principals/lea/tokens/{theirs}").status_code == 403


def test_for_a_partner_the_same_work_is_done_for_a_hidden_release_as_for_none(world: Api) -> None:
    """Nor can it be told by the time that it takes: the very same statements are asked of the database, in the same order."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "audit_node" not in statement:  # as many as the number of the entry has factors of two
            asked.append(statement)

    def work(method: str, path: str, release: str) -> list[str]:
        asked.clear()
        ask(world, "uni-account", method, path, release)
        return list(asked)

    listen(world.engine, "before_cursor_execute", note)
    try:
        for name, method, path in operations(world):
            if "{release}" in path:
                hidden, absent = (work(method, path, release) for release in (OTHER, NOWHERE))
                assert hidden == absent, name
                assert hidden, "the database was not asked at all"
    finally:
        remove(world.engine, "before_cursor_execute", note)


def test_the_console_is_for_people_and_tells_a_stranger_nothing(world: Api) -> None:
    """Its pages: signed in by role; without a session the same for a release that is there and one that is not."""
    for method, path in CONSOLE:
        told = []
        for release in (OWN, OTHER, NOWHERE):
            body = {"json": {"release": release}} if method == "POST" else {}
            found = world.client.request(
                method, path.format(release=release, step="query"), follow_redirects=False, **body
            )
            where = found.headers.get("Location", "")
            told.append((found.status_code, found.text.replace(release, "R"), where.replace(release, "R")))
        assert told[0] == told[1] == told[2], path
        assert told[0][0] in {303, 401, 403, 404}, (path, told[0])
    for role, who in WHO.items():
        form = {"token": world.tokens[who]}
        opened = world.client.post("/console/sign-in", data=form, follow_redirects=False)
        world.client.cookies.clear()
        assert opened.status_code == (403 if role in {"mlops", "partner"} else 303), role
        if opened.status_code == 303:
            session = {"Cookie": opened.headers["Set-Cookie"].partition(";")[0]}
            for release, status in ((OWN, 200), (OTHER, 200), (NOWHERE, 404)):
                page = world.client.get(f"/console/releases/{release}", headers=session)
                assert page.status_code == status, (role, release)
