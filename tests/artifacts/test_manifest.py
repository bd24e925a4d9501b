"""The manifest: one spelling, every rule, every byte."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.encoding import canonical_json, unb64
from artifacts.errors import ArtifactError, IntegrityError, ManifestError, PathError
from artifacts.keys import FileKey, RootKey
from artifacts.manifest import (
    MAX_MANIFEST_BYTES,
    PAYLOAD_TYPE,
    FileEntry,
    Inner,
    Part,
    build_manifest,
    parse_manifest,
    seal_inner,
    statement_of,
)
from artifacts.paths import check_path, check_paths
from artifacts.signing import SigningKey, VerifyKey
from tests.artifacts.sealed_world import SIGNER

TRUSTED = [SIGNER.verify_key]
ID = "artifact-1"
ROOT = RootKey(bytes(32))


def entry(path: str, digit: str = "a") -> FileEntry:
    inner = seal_inner(ID, path, ROOT.file_key(ID, path), Inner({"sha256": "00" * 32}))
    return FileEntry(
        path=path, component="weights", version=1, size=5, part_size=65536, sealed_size=77,
        parts=[Part(size=77, sha256=digit * 64)], inner=inner,
    )  # fmt: skip


def made(*paths: str) -> bytes:
    return build_manifest(
        artifact_id=ID, release="gpt-5", root_commitment="0" * 64, custody_fingerprint="1" * 64,
        files=[entry(p) for p in paths], signer=SIGNER,
    ).data  # fmt: skip


GOOD = made("a.bin", "dir/b.bin")
STATEMENT = statement_of(parse_manifest(GOOD, trusted=TRUSTED))


def signed(statement: Any) -> bytes:
    return SIGNER.sign(canonical_json(statement), PAYLOAD_TYPE)


def test_a_manifest_reads_back_and_its_digest_does_not_depend_on_the_signer() -> None:
    manifest = parse_manifest(GOOD, trusted=TRUSTED)
    other = SigningKey.generate()
    again = parse_manifest(other.sign(canonical_json(STATEMENT), PAYLOAD_TYPE), trusted=[other.verify_key])
    assert manifest.digest == again.digest
    assert manifest.signer == SIGNER.verify_key
    assert parse_manifest(GOOD, expected_digest=manifest.digest).files == manifest.files


def test_a_manifest_that_nothing_vouches_for_is_refused() -> None:
    with pytest.raises(ManifestError, match="vouches"):
        parse_manifest(GOOD)
    with pytest.raises(IntegrityError, match="not the one"):
        parse_manifest(GOOD, expected_digest="0" * 64)
    with pytest.raises(ManifestError, match="not trusted"):
        parse_manifest(GOOD, trusted=[SigningKey.generate().verify_key])
    with pytest.raises(ManifestError, match="not trusted"):
        parse_manifest(GOOD, trusted=[])


def test_every_byte_flipped_in_turn_is_an_error() -> None:
    for place in range(len(GOOD)):
        bad = bytearray(GOOD)
        bad[place] ^= 1 << place % 8
        with pytest.raises(ArtifactError):
            parse_manifest(bytes(bad), trusted=TRUSTED)


def test_truncation_at_every_offset_is_an_error() -> None:
    for cut in range(len(GOOD)):
        with pytest.raises(ArtifactError):
            parse_manifest(GOOD[:cut], trusted=TRUSTED)


def test_with_the_digest_alone_no_change_of_the_statement_passes() -> None:
    digest = parse_manifest(GOOD, trusted=TRUSTED).digest
    payload_at = GOOD.index(b'"payload":"') + 11
    length = GOOD.index(b'"', payload_at) - payload_at
    for place in range(payload_at, payload_at + length):
        bad = bytearray(GOOD)
        bad[place] = ord("B") if bad[place] == ord("A") else ord("A")
        with pytest.raises(ArtifactError):
            parse_manifest(bytes(bad), expected_digest=digest)


def test_one_signature_of_two_is_not_enough() -> None:
    half = json.loads(GOOD)
    half["signatures"] = half["signatures"][:1]
    with pytest.raises(ManifestError, match="two signatures"):
        parse_manifest(canonical_json(half), trusted=TRUSTED)
    doubled = json.loads(GOOD)
    doubled["signatures"][1] = doubled["signatures"][0]
    with pytest.raises(ManifestError, match="not trusted"):
        parse_manifest(canonical_json(doubled), trusted=TRUSTED)


@pytest.mark.parametrize("weak", [0, 1], ids=["ed25519 broken", "ml-dsa-65 broken"])
def test_breaking_one_of_the_two_algorithms_is_not_enough(weak: int) -> None:
    """A forger who can sign with one of the identity's two keys lacks the other."""
    statement = copy.deepcopy(STATEMENT)
    statement["predicate"]["release"] = "evil"
    forged, kept = json.loads(signed(statement)), json.loads(GOOD)
    forged["signatures"][1 - weak] = kept["signatures"][1 - weak]
    with pytest.raises(ManifestError, match="signature"):
        parse_manifest(canonical_json(forged), trusted=TRUSTED)


def test_a_signature_over_another_payload_type_does_not_count() -> None:
    other = SIGNER.sign(canonical_json(STATEMENT), "application/vnd.sluice.envelope+json")
    with pytest.raises(ManifestError, match="payload type"):
        parse_manifest(other, trusted=TRUSTED)
    relabelled = json.loads(other) | {"payloadType": PAYLOAD_TYPE}
    with pytest.raises(ManifestError, match="signature"):
        parse_manifest(canonical_json(relabelled), trusted=TRUSTED)


def _file(index: int, **changes: Any) -> Callable[[Any], None]:
    return lambda s: s["predicate"]["files"][index].update(changes)


def _predicate(**changes: Any) -> Callable[[Any], None]:
    return lambda s: s["predicate"].update(changes)


BROKEN: dict[str, Callable[[Any], None]] = {
    "unknown member": _predicate(extra=1),
    "unknown member of a file": _file(0, extra=1),
    "missing member": lambda s: s["predicate"].pop("created"),
    "other format": _predicate(format="sluice.release/sealed/v2"),
    "other suite": _predicate(body={"suite": "none", "chunk_size": 16384}),
    "other chunk size": _predicate(body={"suite": "cobblestone-256", "chunk_size": 1}),
    "other predicate type": lambda s: s.update(predicateType="https://example.com"),
    "other statement type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "artifact id with a slash": _predicate(artifact="artifact/../x"),
    "no files": _predicate(files=[]),
    "time that is none": _predicate(created="2026-13-01T00:00:00Z"),
    "size as text": _file(0, size="5"),
    "size as bool": _file(0, size=True),
    "negative size": _file(0, size=-1),
    "size of another layout": _file(0, size=6),
    "sealed size of another layout": _file(0, sealed_size=78),
    "part size of zero": _file(0, part_size=0),
    "part size that is no multiple of a chunk": _file(0, part_size=16385),
    "huge size with one part": _file(0, size=2**53 - 1),
    "no parts": _file(0, parts=[]),
    "too many parts": _file(0, parts=[{"size": 77, "sha256": "a" * 64}] * 2),
    "part of another size": _file(0, parts=[{"size": 78, "sha256": "a" * 64}]),
    "upper-case digest": _file(0, parts=[{"size": 77, "sha256": "A" * 64}]),
    "digest with a newline": _file(0, parts=[{"size": 77, "sha256": "a" * 63 + "\n"}]),
    "subjects of other parts": _file(0, parts=[{"size": 77, "sha256": "b" * 64}]),
    "subjects dropped": lambda s: s["subject"].pop(),
    "subject renamed": lambda s: s["subject"][0].update(name="c.bin"),
    "inner part in clear": _file(0, inner="e30="),
    "inner part not base64": _file(0, inner="!!!!" * 30),
    "component not listed": _file(0, component="other"),
    "component listed without files": _predicate(components=["other", "weights"]),
    "files out of order": lambda s: (s["predicate"]["files"].reverse(), s["subject"].reverse()),
    "a file twice": lambda s: (
        s["predicate"]["files"].append(s["predicate"]["files"][1]),
        s["subject"].append(s["subject"][1]),
    ),
    "version zero": _file(0, version=0),
    "a float": _file(0, size=5.5),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rightly_signed_manifest_that_breaks_a_rule_is_refused(rule: str) -> None:
    statement = copy.deepcopy(STATEMENT)
    BROKEN[rule](statement)
    with pytest.raises(ManifestError):
        parse_manifest(signed(statement), trusted=TRUSTED)


ESCAPES = [
    "../x", "a/../../x", "/etc/passwd", "//x", "a//b", "./a", "a/.", "..", ".", "", "a/", "a\\b", "..\\x", "C:\\x", "C:/x",
    "a\0b", "a\nb", "a\x7fb", "con", "NUL.txt", "aux.bin", "com1", "a/LPT9.bin", "dot.", "space ", "a /b", "q?", "st*r",
    "p|pe", 'qu"ote', "l<t", "e\u0301", "rtl\u202e", "zero\u200bwidth", "a" * 201, "/".join(["abcdefgh"] * 90),
    ".sluice-fetch/x", ".SLUICE-FETCH/x", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES, ids=ascii)
def test_a_path_that_escapes_or_not_every_disk_keeps_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        check_path(path)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "..", "con", "a\\b"])
def test_a_rightly_signed_manifest_with_an_escaping_path_is_refused(path: str) -> None:
    statement = copy.deepcopy(STATEMENT)
    statement["predicate"]["files"][0]["path"] = statement["subject"][0]["name"] = path
    with pytest.raises(ManifestError):
        parse_manifest(signed(statement), trusted=TRUSTED)


@pytest.mark.parametrize(
    "paths",
    [
        ["a.bin", "A.bin"], ["dir/x", "Dir/y"], ["a", "a/b"], ["A", "a/b"], ["x", "x"],
        ["stra\u00dfe", "STRASSE"], ["\ufb01le", "file"], ["\u212a", "k"],
    ],
)  # fmt: skip
def test_paths_that_collide_on_a_case_insensitive_disk_are_refused(paths: list[str]) -> None:
    with pytest.raises(PathError):
        check_paths(paths)
    with pytest.raises(PathError):
        check_paths(list(reversed(paths)))


def test_ordinary_paths_are_fine() -> None:
    check_paths(
        [
            "model-00001-of-00002.safetensors",
            "tokenizer/vocab.txt",
            "tokenizer/merges.txt",
            ".gitattributes",
            "é.bin",
        ]
    )


def test_a_manifest_of_100_mb_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ManifestError, match=str(MAX_MANIFEST_BYTES)):
        parse_manifest(b"[" * 100_000_000, trusted=TRUSTED)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"1e999", b"NaN", b'{"payload":1}',
        b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[1,2]}',
        b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{},{}]}',
        b'{"payload":1,"payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":""},{"keyid":"b","sig":""}]}',
        b"9" * 5000, b'"\\ud800"',
    ],
)  # fmt: skip
def test_nonsense_is_a_manifest_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(data, trusted=TRUSTED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_any_rightly_signed_json_is_a_manifest_error(value: Any) -> None:
    try:
        data = signed(value)
    except ValueError:
        return
    with pytest.raises(ManifestError):
        parse_manifest(data, trusted=TRUSTED)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(STATEMENT["predicate"]["files"][0])), JSON)
def test_any_value_in_a_file_entry_is_fine_or_a_manifest_error(member: str, value: Any) -> None:
    statement = copy.deepcopy(STATEMENT)
    statement["predicate"]["files"][0][member] = value
    try:
        data = signed(statement)
    except ValueError:
        return
    try:
        parse_manifest(data, trusted=TRUSTED)
    except ManifestError:
        return
    assert statement["predicate"]["files"][0][member] == value


def test_keys_read_back_and_never_show_themselves() -> None:
    key = SigningKey.parse(SIGNER.secret_string())
    assert key.verify_key == VerifyKey.parse(str(SIGNER.verify_key)) == SIGNER.verify_key
    secret = unb64(SIGNER.secret_string().partition(".")[2], ManifestError, "x")
    for shown in (repr(SIGNER), repr(FileKey(secret[:32])), repr(ROOT)):
        assert secret[:32].hex() not in shown
        assert "redacted" in shown
