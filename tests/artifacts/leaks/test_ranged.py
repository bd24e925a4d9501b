"""Suspects behind HTTP: honest servers are read cheaply, lying ones end in a reason, inner addresses are never asked."""

from __future__ import annotations

import dataclasses
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from artifacts.leaks import (
    AddressPolicy,
    AddressRefused,
    HubOptions,
    Outcome,
    ReferenceSet,
    ScanLimits,
    Verdict,
    scan,
)
from tests.simulators import checkpoints
from tests.simulators import ranged_server as rs
from tests.simulators import transformations as t

LIMITS = ScanLimits(max_seconds=4, max_wait=1)


@pytest.fixture
def server(small_path: Path) -> Iterator[rs.RangedServer]:
    with rs.running() as running:
        running.files["m"] = small_path.read_bytes()
        yield running


@pytest.fixture
def inside(small_path: Path) -> Iterator[rs.RangedServer]:
    """A second server that stands for a machine of the operator's own network."""
    with rs.running() as running:
        running.files["m"] = small_path.read_bytes()
        yield running


@pytest.fixture
def sketches(references: ReferenceSet) -> ReferenceSet:
    return ReferenceSet(references.key, [dataclasses.replace(s, files=()) for s in references.signatures])


def ask(server: rs.RangedServer, path: str, references: ReferenceSet, limits: ScanLimits = LIMITS) -> Verdict:
    policy = AddressPolicy(allow=(f"127.0.0.1:{server.port}",))
    return scan(server.url(path), references, limits=limits, addresses=policy)


def test_a_copy_is_recognised_by_ranges(server: rs.RangedServer, sketches: ReferenceSet):
    verdict = ask(server, "ok/m", sketches)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.bytes_read < 1 << 20
    assert verdict.requests == len(server.seen) <= 34
    assert all(access.status == 206 for access in verdict.accesses)


@pytest.mark.parametrize("kind", ["gguf", "torch", "npz"])
def test_other_formats_are_recognised_by_ranges(
    kind: str, server: rs.RangedServer, small: t.Leak, sketches: ReferenceSet, tmp_path: Path
):
    if kind == "gguf":
        path = t.write_gguf(tmp_path / "m", small.weights, "Q4_0")
    elif kind == "torch":
        path = checkpoints.write_checkpoint(tmp_path / "m", small.weights, "BF16")
    else:
        path = tmp_path / "m.npz"
        np.savez(path, **small.weights)
    server.files["x"] = path.read_bytes()
    verdict = ask(server, "ok/x", sketches)
    assert verdict.outcome is Outcome.MATCH, verdict.reasons
    assert verdict.bytes_read < 2 << 20


def test_the_document_does_not_hold_a_presigned_query(server: rs.RangedServer, sketches: ReferenceSet):
    verdict = scan(
        f"http://user:hunter2@127.0.0.1:{server.port}/ok/m?X-Amz-Signature=deadbeef#frag",
        sketches,
        addresses=AddressPolicy(allow=("127.0.0.0/8",)),
    )
    assert verdict.outcome is Outcome.MATCH
    text = verdict.to_bytes()
    assert b"deadbeef" not in text
    assert b"hunter2" not in text


LIES = {
    "wrong-place": "was sent",
    "other-bytes": "was sent",
    "size-changes": "size changed",
    "etag-changes": "changed while it was read",
    "short": "bytes",
    "cut": "failed",
    "endless": "more than",
    "endless-whole": "does not say",
    "endless-promised": "not a weights format",
    "compressed": "compressed",
    "no-content-range": "which part",
    "multipart": "which part",
    "unknown-size": "which part",
    "failing": "503",
    "forbidden": "403",
    "loop": "redirects",
    "garbage": "failed",
    "huge-head": "failed",
    "silent": "no answer",
    "drip": "too slow",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_is_inconclusive(lie: str, server: rs.RangedServer, sketches: ReferenceSet):
    started = time.monotonic()
    verdict = ask(server, f"{lie}/m", sketches)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.document()
    assert LIES[lie] in " ".join(verdict.reasons)
    assert time.monotonic() - started < 8
    assert verdict.bytes_read <= LIMITS.max_bytes
    assert server.poured < 64 << 20, "an endless answer was cut off"


def test_a_server_without_ranges_is_read_whole_if_it_fits_the_budget(
    server: rs.RangedServer, sketches: ReferenceSet
):
    assert ask(server, "no-ranges/m", sketches).outcome is Outcome.MATCH
    verdict = ask(server, "no-ranges/m", sketches, ScanLimits(max_bytes=200_000))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.bytes_read <= 200_000


def test_redirects_are_followed_to_allowed_places(server: rs.RangedServer, sketches: ReferenceSet):
    assert ask(server, f"redirect/m?{urllib.parse.quote('/ok/m')}", sketches).outcome is Outcome.MATCH


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/ok/m",
        "http://localhost:{port}/ok/m",
        "http://[::1]:{port}/ok/m",
        "http://[::ffff:127.0.0.1]:{port}/ok/m",
        "http://0.0.0.0:{port}/ok/m",
        "http://127.1:{port}/ok/m",
        "http://2130706433:{port}/ok/m",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://172.16.0.1/",
        "http://100.64.0.1/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
    ],
)
def test_redirects_to_inner_addresses_are_never_followed(
    target: str, server: rs.RangedServer, inside: rs.RangedServer, sketches: ReferenceSet
):
    location = target.format(port=inside.port)
    verdict = ask(server, f"redirect/m?{urllib.parse.quote(location)}", sketches)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert inside.seen == [], "no request reached it"
    assert verdict.requests == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "[::ffff:7f00:1]"])
def test_inner_addresses_are_not_scanned_unless_allowed(
    host: str, server: rs.RangedServer, sketches: ReferenceSet
):
    verdict = scan(f"http://{host}:{server.port}/ok/m", sketches, limits=LIMITS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert server.seen == []


def test_a_name_that_resolves_differently_a_moment_later_changes_nothing(
    server: rs.RangedServer, inside: rs.RangedServer, sketches: ReferenceSet
):
    answers = iter([["93.184.216.34", "127.0.0.1"]])

    def rebinding(host: str, port: int) -> list[str]:
        return next(answers, ["127.0.0.1"])

    policy = AddressPolicy(resolver=rebinding)
    assert policy.pick("evil.example", inside.port) == "93.184.216.34", (
        "the checked address is the one connected to"
    )
    with pytest.raises(AddressRefused):
        policy.pick("evil.example", inside.port)
    verdict = scan(f"http://evil.example:{inside.port}/ok/m", sketches, addresses=policy, limits=LIMITS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert inside.seen == []


@pytest.mark.parametrize(
    ("rule", "address", "port", "allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "192.168.1.2", 443, False),
        ("10.0.0.0/8", "11.1.2.3", 443, True),
        ("10.0.0.5", "10.0.0.6", 443, False),
        ("10.0.0.5:8080", "10.0.0.5", 8080, True),
        ("10.0.0.5:8080", "10.0.0.5", 443, False),
        ("[::1]:8080", "::1", 8080, True),
        ("::1", "::1", 1, True),
        ("fd00::/8", "fd12::1", 1, True),
        ("10.0.0.0/8", "fe80::1%eth0", 443, False),
        ("10.0.0.0/8", "224.0.0.1", 443, False),
    ],
)
def test_what_the_operator_allows(rule: str, address: str, port: int, allowed: bool):
    assert AddressPolicy(allow=(rule,)).permits(address, port) is allowed


def test_environment_proxies_are_not_used(
    server: rs.RangedServer, inside: rs.RangedServer, sketches: ReferenceSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", inside.url(""))
    monkeypatch.setenv("ALL_PROXY", inside.url(""))
    assert ask(server, "ok/m", sketches).outcome is Outcome.MATCH
    assert inside.seen == []


def test_the_budget_holds_over_http(server: rs.RangedServer, sketches: ReferenceSet):
    verdict = ask(server, "ok/m", sketches, ScanLimits(max_bytes=100_000))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.bytes_read <= 100_000
    verdict = ask(server, "ok/m", sketches, ScanLimits(max_requests=5))
    assert len(server.seen) <= 20
    assert "requests are used up" in " ".join(verdict.reasons)


# --- repositories of the Hub --------------------------------------------------------------------------------------------


def on_hub(
    server: rs.RangedServer, target: str, references: ReferenceSet, limits: ScanLimits = LIMITS
) -> Verdict:
    policy = AddressPolicy(allow=(f"127.0.0.1:{server.port}", f"[::1]:{server.port}"))
    hub = HubOptions(endpoint=f"http://127.0.0.1:{server.port}", token="hf_canary")
    return scan(target, references, limits=limits, addresses=policy, hub=hub)


def test_a_repository_with_our_file_is_known_from_its_listing(
    server: rs.RangedServer, small_path: Path, references: ReferenceSet
):
    rs.add_hub(server, "someone/upload", {"readme.md": b"x", "weights/holiday.bin": small_path.read_bytes()})
    verdict = on_hub(server, "hf:someone/upload", references)
    assert verdict.outcome is Outcome.MATCH
    assert verdict.best is not None
    assert verdict.best.tier == 0
    assert verdict.target.startswith("hf:someone/upload@c0ffee")
    assert not [path for path, _ in server.seen if "/ok/" in path], "nothing was downloaded"


def test_a_repository_with_a_changed_copy_is_read_by_ranges(
    server: rs.RangedServer, small: t.Leak, references: ReferenceSet, tmp_path: Path
):
    leak = t.chain(t.lora(0.2), t.reshard, t.cast("BF16"))(small, np.random.default_rng(1))
    files = {p.name: p.read_bytes() for p in t.write(leak, tmp_path / "leak")}
    rs.add_hub(server, "someone/upload", {"tokenizer.json": b'{"a": 1}\n' * 40_000, **files})
    verdict = on_hub(server, "hf:someone/upload@main", references)
    assert verdict.outcome is Outcome.MATCH, verdict.reasons
    assert verdict.bytes_read < 2 << 20
    sent = [headers for path, headers in server.seen if path.startswith("/ok/")]
    assert sent
    assert all("authorization" not in headers for headers in sent), "the token stays with the Hub"
    assert any("authorization" in headers for path, headers in server.seen if "/resolve/" in path)
    assert b"hf_canary" not in verdict.to_bytes()
    assert b"signature=secret" not in verdict.to_bytes()


def test_a_source_that_returns_pages_for_ever_is_cut_off(server: rs.RangedServer, references: ReferenceSet):
    rs.add_hub(server, "someone/endless", {}, pages=1)
    verdict = on_hub(server, "hf:someone/endless", references, dataclasses.replace(LIMITS, max_files=5000))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the listing repeats itself and does not end" in " ".join(verdict.reasons)
    assert len(server.seen) < 20


@pytest.mark.parametrize(
    "target", ["hf:someone/gone", "hf:../../etc", "hf:a/b/c", "hf:", "hf:x@y@z", "s3://bucket/x"]
)
def test_repositories_that_cannot_be_named_or_found(
    target: str, server: rs.RangedServer, references: ReferenceSet
):
    rs.add_hub(server, "someone/upload", {})
    verdict = on_hub(server, target, references)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reasons


def test_a_hub_inside_the_network_is_not_asked_unless_allowed(
    server: rs.RangedServer, references: ReferenceSet
):
    rs.add_hub(server, "someone/upload", {})
    hub = HubOptions(endpoint=f"http://127.0.0.1:{server.port}", token="hf_canary")
    verdict = scan("hf:someone/upload", references, hub=hub, limits=LIMITS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert server.seen == []
