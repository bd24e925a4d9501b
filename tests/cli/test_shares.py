"""Key shares from the terminal: dealt while sealing, checked by their holder, released with a signed approval."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from artifacts.custody.shares import combine, receive_share, unlock
from artifacts.keys import custody_identity, custody_keygen, partner_keygen, unwrap_half
from artifacts.manifest import parse_manifest
from orchestrator.cli.decisions import signer_for
from orchestrator.cli.failures import LocalFailure
from orchestrator.domain.events import SignedOff
from orchestrator.domain.plan import Plan
from orchestrator.domain.values import statement_digest
from orchestrator.records import artifacts, database, releases
from orchestrator.trust.keys import PrivateKey, PublicKey
from tests.api.conftest import RELEASE
from tests.cli.conftest import Service
from tests.support.plans import TWO, five_stages

CUSTODY = custody_keygen()
HOLDERS = ("lea", "sam", "sue")


class Shared:
    """Three holders with keys of their own, a folder to seal, and a plan whose hosted step asks for two shares."""

    def __init__(self, service: Service, home: Path) -> None:
        self.service, self.home = service, home
        self.pairs = {name: partner_keygen() for name in HOLDERS}
        self.keys = {name: PrivateKey.generate() for name in HOLDERS}
        plan = five_stages()
        for name in HOLDERS:
            plan["people"][name]["keys"] = [self.keys[name].public.text()]
            for kind, text in (
                ("share", self.pairs[name].identity.encode()),
                ("key", self.keys[name].to_openssh()),
            ):
                file = home / f"{name}.{kind}"
                file.write_bytes(text)
                file.chmod(0o600)
        plan["steps"] = plan["steps"][:2]
        plan["steps"][1]["gate"].update(sign_offs=TWO, shares=2)
        (home / "plan.json").write_text(json.dumps(plan))
        (home / "model").mkdir()
        (home / "model" / "model.bin").write_bytes(b"weights" * 100)
        (home / "model" / "tokenizer.json").write_text("{}")
        service.ok("mia", "release", "create", "mini", "1", "--plan", home / "plan.json")

    def sealed(self, *more: object) -> dict[str, object]:
        files = ("-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json")
        place = ("--to", CUSTODY.recipient, "--store", f"dir:{self.home}/store", "--register")
        found: dict[str, object] = self.service.ok(
            "ci", "artifact", "seal", self.home / "model", *place, *files, *more
        )
        return found

    def holders(self) -> list[str]:
        return [f"--share-holder={name}={pair.recipient}" for name, pair in self.pairs.items()]

    def sign(self, who: str, role: str, *more: object):
        flags = ("--approve", "--yes", "--role", role, "--key", self.home / f"{who}.key")
        return self.service(who, "sign", RELEASE, "demo", *flags, *more)


@pytest.fixture
def shared(service: Service, home: Path) -> Shared:
    return Shared(service, home)


def test_shares_are_dealt_checked_and_released_with_two_sign_offs(shared: Shared, service: Service) -> None:
    sealed = shared.sealed(*shared.holders(), "--threshold", 2)
    assert sealed["shares"] == {"threshold": 2, "holders": ["lea", "sam", "sue"]}
    art, digest = str(sealed["artifact"]), str(sealed["manifest_digest"])
    service.ok("ci", "artifact", "add", RELEASE, art)
    checked = service.ok("sue", "artifact", "check-share", art, "--share-key", shared.home / "sue.share")
    assert (checked["holder"], checked["threshold"], checked["manifest_digest"]) == ("sue", 2, digest)
    for who, role in (("sam", "safety"), ("lea", "legal")):
        ran = shared.sign(who, role, "--share-key", shared.home / f"{who}.share")
        assert ran.code == 0, ran.err
        assert f"key share {art}: released to custody" in " ".join(ran.err.split())
    gate = service.ok("ann", "gate", "show", RELEASE)["verdict"]
    assert gate["shares"] == [
        {
            "artifact": art,
            "threshold": 2,
            "holders": ["lea", "sam", "sue"],
            "released": ["lea", "sam"],
        }
    ]
    assert "shares" not in {condition["code"] for condition in gate["unmet"]}
    # what arrived is what custody, and nobody else, opens with them
    with database.reading(service.api.engine) as session:
        events = releases.check_events(session, RELEASE)
        record = artifacts.get(session, art)
        data = artifacts.manifest(session, art)
    manifest = parse_manifest(data, expected_digest=digest.removeprefix("sha256:"))
    dealt, identity = manifest.shares, custody_identity(CUSTODY.identity)
    assert dealt is not None
    opened = []
    for event in events:
        if isinstance(event, SignedOff):
            sealed_share = base64.b64decode(event.shares[art])
            statement = statement_digest(event.envelope) or ""
            opened.append(receive_share(sealed_share, identity, statement, dealt, art, event.by))
    half = unwrap_half(
        record.wrapped_root or "",
        identity,
        manifest.digest,
        artifact_id=art,
        set_id=dealt.set_id,
        commitment=dealt.half,
    )
    root = unlock(dealt, art, half, combine(dealt, art, opened))
    assert root.commitment(art) == manifest.root_commitment


def test_what_is_not_released_is_said_and_a_wrong_key_or_person_is_told(
    shared: Shared, service: Service
) -> None:
    art = str(shared.sealed(*shared.holders(), "--threshold", 2)["artifact"])
    service.ok("ci", "artifact", "add", RELEASE, art)
    wrong = shared.sign("sam", "safety", "--share-key", shared.home / "lea.share")
    assert wrong.code != 0
    assert "was sealed to another key of sam" in " ".join(wrong.err.split())
    silent = shared.sign("sam", "safety")
    assert silent.code == 0, silent.err
    assert "yours is NOT released" in " ".join(silent.err.split())
    gate = service.ok("ann", "gate", "show", RELEASE)["verdict"]
    [unmet] = [condition for condition in gate["unmet"] if condition["code"] == "shares"]
    assert unmet["message"].startswith("2 more key shares of")
    assert "shares" in {wait["what"] for wait in service.ok("sam", "release", "pending")}
    reject = ("sign", RELEASE, "demo", "--reject", "--yes", "--share-key", shared.home / "lea.share")
    assert service("lea", *reject).code == 2


def test_an_artifact_without_the_shares_that_the_plan_asks_for_is_refused_when_it_is_bound(
    shared: Shared, service: Service
) -> None:
    for more, told in (
        ((), "`--share-holder NAME=age1pq…` for each holder and `--threshold 2`"),
        ((*shared.holders(), "--threshold", 3), "asks for 2 key shares, but it was sealed for 3"),
    ):
        art = str(shared.sealed(*more)["artifact"])
        ran = service("ci", "artifact", "add", RELEASE, art, "--json")
        assert ran.code != 0
        assert told in " ".join(reason["message"] for reason in ran.error["reasons"])
    unpaired = ("artifact", "seal", shared.home / "model", "--to", CUSTODY.recipient, "--store", "dir:/x")
    assert service("ci", *unpaired, "--threshold", 2).code == 2
    assert service("ci", *unpaired, "--share-holder", "sam").code == 2


def test_whoever_has_a_passkey_alone_is_told_where_it_signs_and_that_it_releases_no_share() -> None:
    raw = five_stages()
    passkey = PublicKey("passkey-eddsa", PrivateKey.generate().public.material, "console.example")
    raw["people"]["sam"]["keys"] = [passkey.text()]
    with pytest.raises(LocalFailure) as refused:
        signer_for(Plan.model_validate(raw), "sam", None)
    assert "passkey" in refused.value.title
    assert "console" in refused.value.detail
    assert "key file" in refused.value.detail
