"""Single sign-on against a provider that rotates its keys, has a clock of its own, ends sessions, and is sometimes away."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from orchestrator.api import create_app
from orchestrator.api.deps import ApiSettings, Deps
from orchestrator.api.sign_in.browser import SingleSignOn
from orchestrator.api.sign_in.keys import IssuerKeys
from orchestrator.api.sign_in.settings import SignInSettings, read_sign_in
from orchestrator.api.sign_in.tokens import Verifier
from orchestrator.domain.errors import Malformed
from orchestrator.domain.permissions import Role
from orchestrator.records import audit, database, principals
from tests.api.conftest import Api
from tests.simulators.oidc import Provider, providing

pytestmark = pytest.mark.stack


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as made:
        made.user = {
            "sub": "u-1",
            "preferred_username": "mia",
            "name": "Mia",
            "groups": ["managers"],
            "sid": "s-1",
        }
        yield made


@dataclass
class Service:
    """The API with single sign-on, on the real clock."""

    api: Api
    client: TestClient
    provider: Provider
    verifier: Verifier
    now: list[datetime]

    def me(self, token: str) -> Any:
        return self.client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})

    def roles(self, token: str) -> list[str]:
        answer = self.me(token)
        assert answer.status_code == 200, answer.text
        return sorted(answer.json()["roles"])

    def sign_in(self, next_path: str = "/console") -> httpx.Response:
        """The whole way through the provider, as a browser goes it."""
        to = self.client.get("/sign-in", params={"next": next_path}, follow_redirects=False)
        assert to.status_code == 303, to.text
        back = httpx.get(to.headers["Location"], trust_env=False)
        assert back.status_code == 302, back.text
        parts = urlsplit(back.headers["Location"])
        return self.client.get(f"{parts.path}?{parts.query}", follow_redirects=False)

    def page_token(self) -> str:
        return self.client.get("/sign-in/session").json()["token"]


def settings(provider: Provider, **people: Any) -> SignInSettings:
    return SignInSettings.model_validate(
        {
            "people": {
                "issuer": provider.issuer,
                "client_id": "sluice",
                "roles": {"managers": ["release_manager"], "safety": ["approver"], "audit": ["auditor"]},
                **people,
            },
            "pipelines": [
                {
                    "issuer": provider.issuer,
                    "audience": "https://sluice.example",
                    "match": {"repository": "lab/models", "ref": "refs/heads/main"},
                    "principal": "ci-models",
                    "roles": ["mlops"],
                }
            ],
        }
    )


@pytest.fixture
def service(api: Api, provider: Provider) -> Iterator[Service]:
    yield from served(api, provider)


def served(api: Api, provider: Provider, **people: Any) -> Iterator[Service]:
    now = [datetime.now(UTC)]
    with httpx.Client(trust_env=False, timeout=5) as http:
        verifier = Verifier(settings(provider, **people), api.engine, http, lambda: now[0])
        deps = Deps(
            engine=api.engine,
            gateway=api.gateway,
            documents=api.deps.documents,
            formats=api.deps.formats,
            settings=ApiSettings(public_url="https://testserver"),
            clock=lambda: now[0],
            identify=verifier.identify,
            sign_in=SingleSignOn(verifier, http, provider.client_secret),
        )
        with TestClient(
            create_app(deps), base_url="https://testserver", raise_server_exceptions=False
        ) as client:
            yield Service(api, client, provider, verifier, now)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# --- bearer tokens


def test_a_person_is_who_the_claim_says_in_the_roles_of_their_groups(service):
    assert service.roles(service.provider.token()) == ["release_manager"]
    both = service.provider.token(groups=["safety", "audit", "unheard-of"])
    assert service.roles(both) == ["approver", "auditor"]
    made = service.client.post(
        "/v1/principals", json={}, headers={"Authorization": f"Bearer {service.provider.token()}"}
    )
    assert made.status_code == 403, "roles come from groups alone"


def test_a_pipeline_is_the_machine_of_the_rule_that_its_claims_match(service):
    claims = {"sub": "repo:lab/models", "aud": "https://sluice.example", "repository": "lab/models"}
    token = service.provider.token(**claims, ref="refs/heads/main", preferred_username=None)
    found = service.me(token).json()
    assert (found["id"], found["kind"], found["roles"]) == ("ci-models", "machine", ["mlops"])
    for wrong in (
        {"ref": "refs/heads/evil"},
        {"ref": None},
        {"ref": ["refs/heads/main"]},
        {"repository": "eve/models"},
    ):
        other = {**claims, "ref": "refs/heads/main", "preferred_username": None, **wrong}
        assert service.me(service.provider.token(**other)).status_code == 401, wrong


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-client"},
        {"aud": ["sluice", "other"], "azp": "other"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "later"},
        {"iat": None},
        {"iat": 32_503_680_000},
        {"nbf": 32_503_680_000},
        {"sub": None},
        {"sub": ""},
        {"preferred_username": None},
        {"preferred_username": "../mia"},
        {"preferred_username": "Mia Müller"},
        {"preferred_username": "sluice"},
        {"groups": None},
        {"groups": []},
        {"groups": ["strangers"]},
        {"groups": {"managers": True}},
    ],
    ids=str,
)
def test_a_token_that_does_not_fit_counts_for_nothing(service, claims):
    assert service.me(service.provider.token(**claims)).status_code == 401


def test_a_token_without_a_signature_or_with_a_strangers_counts_for_nothing(service):
    good = service.provider.token()
    head, body, signature = good.split(".")
    none = _b64(json.dumps({"alg": "none"}).encode())
    stranger = RSAKey.generate_key(2048, {"kid": service.provider.keys[0].kid})
    public = service.provider.keys[0].as_pem(private=False)
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    mixed = _b64(json.dumps({"alg": "HS256", "kid": service.provider.keys[0].kid}).encode())
    mac = hmac.digest(public, f"{mixed}.{body}".encode(), "sha256")
    for bad in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        service.provider.sign(claims, stranger),
        f"{mixed}.{body}.{_b64(mac)}",  # the public key as if it were a shared secret
        f"{head}.{body}.{signature[:-4]}AAAA",
        good[:-1],
        "a.b.c",
        "..",
        "x" * 20_000,
    ):
        assert service.me(bad).status_code == 401
    assert service.me(good).status_code == 200


def test_keys_rotate_and_a_key_that_was_taken_back_signs_nothing_more(service):
    old = service.provider.keys[0]
    assert service.me(service.provider.token()).status_code == 200
    service.provider.rotate("EC")
    keys: IssuerKeys = service.verifier.issuers[service.provider.issuer]
    keys._tried_at = float("-inf")  # ten seconds have passed
    assert service.me(service.provider.token()).status_code == 200
    claims = json.loads(base64.urlsafe_b64decode(service.provider.token().split(".")[1] + "=="))
    assert service.me(service.provider.sign(claims, old)).status_code == 401


def test_made_up_key_ids_cause_no_storm(service):
    service.me(service.provider.token())
    before = len(service.provider.requests)
    claims = json.loads(base64.urlsafe_b64decode(service.provider.token().split(".")[1] + "=="))
    for number in range(50):
        service.me(service.provider.sign(claims, kid=f"made-up-{number}"))
    assert len(service.provider.requests) - before <= 1


@pytest.mark.parametrize(("skew", "status"), [(45, 200), (-330, 200), (90, 401), (-400, 401)])
def test_clocks_may_differ_by_a_minute(service, skew, status):
    service.provider.skew = skew  # a token lasts 300 s: 330 s ago it ended 30 s ago
    assert service.me(service.provider.token()).status_code == status


def test_a_provider_that_is_away_at_first_is_said_and_later_does_no_harm(service):
    service.provider.down = True
    token = service.provider.token()
    assert service.me(token).status_code == 503
    service.provider.down = False
    service.verifier.issuers[service.provider.issuer]._tried_at = float("-inf")
    assert service.me(token).status_code == 200
    service.provider.down = True
    assert service.me(service.provider.token()).status_code == 200, "its keys are known"


def test_a_provider_that_says_that_it_is_another_is_not_believed(service):
    service.provider.shown_issuer = "https://evil.example"
    assert service.me(service.provider.token()).status_code == 503


def test_a_name_that_was_given_away_again_is_not_the_same_person(service):
    assert service.me(service.provider.token()).status_code == 200
    assert service.me(service.provider.token(sub="u-2")).status_code == 401
    assert service.me(service.provider.token(preferred_username="lea")).status_code == 401
    assert service.me(service.provider.token()).status_code == 200


def test_nobody_becomes_a_machine_or_a_partner_or_a_stranger(service):
    for name in ("ci", "uni-account", "nobody-here"):
        assert service.me(service.provider.token(preferred_username=name, sub=f"u-{name}")).status_code == 401


def test_a_first_sign_in_makes_the_principal_where_that_is_wished(api, provider):
    for service in served(api, provider, create=True):
        provider.user = {
            "sub": "u-9",
            "preferred_username": "new.one",
            "name": "New One",
            "groups": ["safety"],
        }
        assert service.roles(provider.token()) == ["approver"]
        with database.reading(api.engine) as session:
            made = principals.get(session, "new.one")
            bound = [json.loads(leaf.body) for leaf in audit.leaves(session, kind="admin")][-1]
        assert (made.kind, made.name, made.roles) == ("person", "New One", [])
        assert (bound["action"], bound["principal"]) == ("subject_bound", "new.one")


def test_who_was_switched_off_here_stays_out(service):
    assert service.me(service.provider.token()).status_code == 200
    with database.writing(service.api.engine) as session:
        principals.change(session, "mia", active=False, at=service.now[0], by="olaf")
    assert service.me(service.provider.token()).status_code == 401


# --- browsers


def test_the_way_through_the_provider_opens_a_session_and_it_ends(service):
    done = service.sign_in("/console/releases")
    assert (done.status_code, done.headers["Location"]) == (303, "/console/releases")
    cookie = next(c for c in done.headers.get_list("set-cookie") if c.startswith("__Host-sluice-session="))
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"))
    assert service.client.get("/v1/me").json()["id"] == "mia"
    out = service.client.post("/sign-in/out", headers={"X-Sluice-Session": service.page_token()})
    assert out.json()["provider"] == f"{service.provider.issuer}/out"
    assert service.client.get("/v1/me").status_code == 401


def test_a_session_ends_when_its_time_is_over(service):
    service.sign_in()
    service.now[0] += timedelta(hours=9, minutes=59)
    assert service.client.get("/v1/me").status_code == 200
    service.now[0] += timedelta(minutes=2)
    service.client.cookies.jar.clear_expired_cookies()
    assert service.client.get("/v1/me").status_code == 401


def test_another_sites_page_cannot_ask_for_anything_in_ones_name(service):
    service.sign_in()
    for headers in ({}, {"X-Sluice-Session": "0" * 64}, {"X-Sluice-Session": ""}):
        answer = service.client.post("/v1/releases/none/hold", json={"reason": "x"}, headers=headers)
        assert answer.status_code == 401
    token = {"X-Sluice-Session": service.page_token()}
    assert (
        service.client.post("/v1/releases/none/hold", json={"reason": "x"}, headers=token).status_code == 404
    )
    crossed = {**token, "Sec-Fetch-Site": "cross-site"}
    assert (
        service.client.post("/v1/releases/none/hold", json={"reason": "x"}, headers=crossed).status_code
        == 401
    )
    assert service.client.get("/v1/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
    seen = service.client.get("/v1/me")
    assert not [name for name in seen.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/console/x?y=1", "/console/x?y=1"),
        ("//evil.example", "/console"),
        ("https://evil.example", "/console"),
        ("/\\evil.example", "/console"),
        ("console", "/console"),
        ("/" + "a" * 600, "/console"),
    ],
)
def test_one_comes_back_to_a_page_of_ours_alone(service, asked, led):
    assert service.sign_in(asked).headers["Location"] == led


def test_a_code_counts_once_and_for_the_sign_in_that_began_it(service):
    to = service.client.get("/sign-in", follow_redirects=False)
    back = urlsplit(httpx.get(to.headers["Location"], trust_env=False).headers["Location"])
    place = f"{back.path}?{back.query}"
    cookies = dict(service.client.cookies)
    service.client.cookies.clear()
    assert service.client.get(place, follow_redirects=False).status_code == 401, "another browser"
    for name, value in cookies.items():
        service.client.cookies.set(name, value)
    stolen = place.replace(parse_qs(back.query)["state"][0], "another-state")
    assert service.client.get(stolen, follow_redirects=False).status_code == 401
    assert service.client.get(place, follow_redirects=False).status_code == 303
    for name, value in cookies.items():
        service.client.cookies.set(name, value)
    assert service.client.get(place, follow_redirects=False).status_code == 401, "the code was used"


def test_a_sign_in_that_took_too_long_or_was_refused_is_said(service):
    to = service.client.get("/sign-in", follow_redirects=False)
    back = urlsplit(httpx.get(to.headers["Location"], trust_env=False).headers["Location"])
    service.now[0] += timedelta(minutes=11)
    late = service.client.get(f"{back.path}?{back.query}", follow_redirects=False)
    assert (late.status_code, late.json()["code"]) == (401, "unauthenticated")
    service.provider.user = None
    denied = service.sign_in()
    assert denied.status_code == 401
    assert "access_denied" in denied.text
    assert "client-secret-canary" not in denied.text


def test_an_answer_from_another_provider_is_refused(service):
    to = service.client.get("/sign-in", follow_redirects=False)
    back = urlsplit(httpx.get(to.headers["Location"], trust_env=False).headers["Location"])
    query = "&".join(part for part in back.query.split("&") if not part.startswith("iss="))
    mixed = service.client.get(f"{back.path}?{query}&iss=https%3A%2F%2Fevil.example", follow_redirects=False)
    assert mixed.status_code == 401


# --- sessions that the provider ends


def logout(service: Service, token: str) -> Any:
    return service.client.post("/v1/sign-in/back-channel", data={"logout_token": token})


def test_a_session_that_the_provider_ended_is_over_here_and_its_tokens_are(service):
    service.sign_in()
    token = service.provider.token()
    ended = logout(service, service.provider.logout_token(sid="s-1", sub="u-1"))
    assert ended.status_code == 204
    assert service.client.get("/v1/me").status_code == 401
    assert service.me(token).status_code == 401
    assert service.me(service.provider.token(sid="s-2")).status_code == 200, (
        "another session of theirs goes on"
    )


def test_all_of_a_subject_is_over_until_they_sign_in_again(service):
    token = service.provider.token()
    assert service.me(token).status_code == 200
    service.now[0] += timedelta(seconds=2)
    assert logout(service, service.provider.logout_token(sub="u-1")).status_code == 204
    assert service.me(token).status_code == 401
    service.now[0] += timedelta(seconds=3)
    service.provider.skew = 5
    assert service.me(service.provider.token()).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"events": None},
        {"events": {}},
        {"nonce": "n"},
        {"aud": "other"},
        {"sub": None, "sid": None},
        {"iss": "https://evil.example"},
        {"exp": 1_000_000_000},
    ],
    ids=str,
)
def test_what_is_no_logout_token_ends_nothing(service, claims):
    service.sign_in()
    assert logout(service, service.provider.logout_token(**{"sid": "s-1", **claims})).status_code == 422
    assert logout(service, service.provider.token()).status_code == 422, "an identity token is none"
    assert service.client.get("/v1/me").status_code == 200


# --- the file


def write(folder: Path, text: str) -> Path:
    path = folder / "sign-in.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_is_read_and_says_everything_that_is_wrong(tmp_path):
    good = write(
        tmp_path,
        "people: {issuer: https://sso.example, client_id: sluice, roles: {a: [approver]}}\n"
        "pipelines: [{issuer: https://ci.example, audience: x, match: {repository: r}, principal: ci, roles: [mlops]}]\n",
    )
    assert read_sign_in(good).pipelines[0].roles == [Role.MLOPS]
    bad = write(
        tmp_path,
        "people: {issuer: http://sso.example, client_id: '', roles: {a: [partner], b: [king]}, extra: 1}\n"
        "pipelines: [{issuer: https://ci.example, audience: x, match: {}, principal: ci, roles: [mlops]}]\n",
    )
    with pytest.raises(Malformed) as caught:
        read_sign_in(bad)
    places = {reason.path for reason in caught.value.reasons}
    assert {
        "people.issuer",
        "people.client_id",
        "people.roles.a",
        "people.extra",
        "pipelines.0.match",
    } <= places
    for text in ("[", "\x00", "people: [1"):
        with pytest.raises(Malformed):
            read_sign_in(write(tmp_path, text))
    with pytest.raises(Malformed, match="cannot be read"):
        read_sign_in(tmp_path / "none.yaml")


def test_without_single_sign_on_there_is_none(api):
    assert api.client.get("/v1/sign-in").status_code == 404
    assert api.client.get("/sign-in", follow_redirects=False).status_code == 404
    assert api.client.get("/sign-in/session").status_code == 401
    api.client.cookies.set("sluice-session", "sls_" + "a" * 43)
    assert api.client.get("/v1/me").status_code == 401
