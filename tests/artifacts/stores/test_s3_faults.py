"""What S3 may do to us: refusals, outages, cut connections, lost answers, stale and short bodies; KMS and locks."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from artifacts.errors import (
    AccessDenied,
    ObjectExists,
    ObjectMissing,
    StaleObject,
    StoreError,
    StoreUnavailable,
)
from artifacts.stores import open_store
from artifacts.stores.retry import RetryPolicy
from artifacts.stores.s3 import S3Store, SharedS3
from infra.parts import StoreOpener
from infra.settings import Settings
from tests.artifacts.stores.servers import S3Server, Strict

pytestmark = pytest.mark.stack
MIB = 1024 * 1024
PART = 5 * MIB


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def control(strict: Any) -> Strict:
    strict.control.calm()
    return strict.control


@pytest.fixture
def store(strict: Any, control: Strict, new_bucket: Any) -> Iterator[S3Store]:
    opened = open_store(f"s3://{new_bucket(strict)}/p", **strict.options, attempts=3)
    assert isinstance(opened, S3Store)
    opened.calls.policy = RetryPolicy(attempts=3, first_s=0.01, longest_s=0.05)
    opened.features()
    control.calm()
    with opened:
        yield opened


@pytest.mark.parametrize("kind", ["500", "503", "cut"])
def test_an_outage_is_retried_and_said(
    store: S3Store, control: Strict, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    control.fail(kind, times=2)
    with caplog.at_level(logging.WARNING, "artifacts.stores.retry"):
        store.put("k", b"hello")
    assert store.get_range("k", 0, 5) == b"hello"
    assert len(caplog.records) == 2
    assert "attempt 1 of 3, next in" in caplog.text


@pytest.mark.parametrize("kind", ["500", "503", "cut"])
def test_an_outage_that_lasts_is_unavailable_after_bounded_attempts(
    store: S3Store, control: Strict, kind: str
) -> None:
    store.put("k", b"hello")
    control.calm()
    control.fail(kind, times=100)
    with pytest.raises(StoreUnavailable, match=r"p: k: .* \(3 attempts\); try again later"):
        store.get_range("k", 0, 5)
    assert len(control.requests) == 3


@pytest.mark.parametrize("attempt", ["put", "begin", "stat", "read", "list", "delete"])
def test_a_refusal_is_access_denied_at_once(store: S3Store, control: Strict, attempt: str) -> None:
    store.put("k", b"hello")
    control.calm()
    control.fail("403", times=100)
    with pytest.raises(AccessDenied, match=r"403"):
        {
            "put": lambda: store.put("other", b"x"),
            "begin": lambda: store.begin("other", 1, PART),
            "stat": lambda: store.stat("k"),
            "read": lambda: store.get_range("k", 0, 5),
            "list": lambda: list(store.list()),
            "delete": lambda: store.delete("k"),
        }[attempt]()
    assert len(control.requests) == 1  # a refusal is not asked again


def test_an_object_that_vanished_while_it_is_read_is_missing(store: S3Store, control: Strict) -> None:
    store.put("k", b"hello")
    control.fail("404", method="GET")
    with pytest.raises(ObjectMissing):
        store.get_range("k", 0, 5)


def test_a_missing_bucket_is_explained(strict: Any, control: Strict) -> None:
    with open_store("s3://no-such-bucket-here", **strict.options) as store:
        for attempt in (lambda: store.stat("k"), lambda: store.put("k", b""), lambda: list(store.list())):
            with pytest.raises(StoreError, match="bucket does not exist"):
                attempt()


def test_a_put_whose_answer_was_lost_is_a_success(store: S3Store, control: Strict) -> None:
    control.fail("lost", method="PUT")
    assert store.put("k", b"hello").size == 5
    assert [m for m, _, _ in control.requests].count("PUT") == 2


def test_a_complete_whose_answer_was_lost_is_a_success(store: S3Store, control: Strict) -> None:
    parts = [secrets.token_bytes(PART), b"end"]
    upload = store.begin("w", 2, PART)
    for index, part in enumerate(parts):
        upload.put_part(index, part, sha(part))
    control.fail("lost", method="POST", contains="uploadId")
    assert upload.complete().size == PART + 3
    assert store.get_range("w", 0, PART + 3) == b"".join(parts)


def test_a_complete_that_lost_the_race_to_other_bytes_of_the_same_size_is_refused(
    store: S3Store, control: Strict
) -> None:
    part = secrets.token_bytes(100)
    upload = store.begin("w", 1, PART)
    upload.put_part(0, part, sha(part))
    store.put("w", bytes(100))
    with pytest.raises(ObjectExists, match="other bytes"):
        upload.complete()


def test_a_part_that_was_damaged_on_the_way_is_sent_again(
    store: S3Store, control: Strict, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, real, sent = secrets.token_bytes(PART), store.calls.client.upload_part, []

    def damaging(**params: Any) -> Any:
        sent.append(1)
        if len(sent) == 1:
            params["Body"] = bytes([part[0] ^ 1]) + part[1:]
        return real(**params)

    monkeypatch.setattr(store.calls.client, "upload_part", damaging)
    upload = store.begin("w", 2, PART)
    upload.put_part(0, part, sha(part))
    assert len(sent) == 2
    assert upload.parts()[0].sha256 == sha(part)


def test_a_body_that_ends_early_goes_on_where_it_stopped(store: S3Store, control: Strict) -> None:
    data = secrets.token_bytes(3 * MIB)
    store.put("k", data)
    control.fail("short", method="GET", times=2)
    assert store.get_range("k", 0, len(data)) == data
    assert len([1 for m, _, _ in control.requests if m == "GET"]) == 3


def test_a_body_that_always_ends_early_is_unavailable_not_short(store: S3Store, control: Strict) -> None:
    store.put("k", b"0123456789")
    control.fail("short", method="GET", times=100)
    with pytest.raises(StoreUnavailable, match=r"cut while reading|ended after"):
        store.get_range("k", 2, 7)


@pytest.mark.parametrize("kind", ["stale", "no-range", "wrong-range"])
def test_an_answer_of_another_object_or_range_is_stale(store: S3Store, control: Strict, kind: str) -> None:
    store.put("k", b"0123456789")
    control.fail(kind, method="GET")
    with pytest.raises(StaleObject):
        store.get_range("k", 2, 5)
    assert store.get_range("k", 2, 5) == b"23456"


def test_an_unfinished_upload_survives_an_outage_in_the_middle(store: S3Store, control: Strict) -> None:
    parts = [secrets.token_bytes(PART), secrets.token_bytes(PART), b"end"]
    upload = store.begin("w", 3, PART)
    upload.put_part(0, parts[0], sha(parts[0]))
    control.fail("503", times=100)
    with pytest.raises(StoreUnavailable):
        upload.put_part(1, parts[1], sha(parts[1]))
    control.calm()
    again = store.begin("w", 3, PART)
    assert again.parts().keys() == {0}
    for index in (1, 2):
        again.put_part(index, parts[index], sha(parts[index]))
    assert again.complete().size == 2 * PART + 3


def test_two_processes_that_begin_at_once_share_one_upload(store: S3Store, strict: Any) -> None:
    part = secrets.token_bytes(PART)
    with open_store(store.uri, **strict.options) as other:
        mine, theirs = store.begin("w", 2, PART), other.begin("w", 2, PART)
        mine.put_part(0, part, sha(part))
        theirs.put_part(1, b"end", sha(b"end"))
        assert mine.complete().size == PART + 3


def test_part_hashes_are_taken_once(store: S3Store, control: Strict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's SHA-256 serves as checksum and as signature's payload hash: the body is hashed nowhere else."""
    import botocore.auth
    import botocore.httpchecksum

    upload, part = store.begin("w", 2, PART), secrets.token_bytes(PART)
    digest = sha(part)
    hashed: list[int] = []

    def spying(data: bytes = b"", **_: Any) -> Any:
        hashed.append(len(data))
        return hashlib.new("sha256", data)

    monkeypatch.setattr(botocore.auth, "sha256", spying)
    monkeypatch.setattr(botocore.httpchecksum, "sha256", spying)
    upload.put_part(0, part, digest)
    assert max(hashed, default=0) < 4096


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "http://user:secret@host"},
        {"lock_mode": "SOMETIMES", "lock_days": 1},
        {"lock_mode": "COMPLIANCE"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(StoreError) as caught:
        open_store("s3://bucket/p", **options)
    assert "secret@" not in str(caught.value)


def test_secrets_are_in_no_repr_and_no_error(store: S3Store, control: Strict, strict: Any) -> None:
    store.put("k", b"x")
    control.fail("403", times=100)
    with pytest.raises(AccessDenied) as caught:
        store.get_range("k", 0, 1)
    for text in (repr(store), str(store), str(caught.value), store.uri):
        assert strict.secret_key not in text
    for expires in (0, -1, 7 * 24 * 3600 + 1):
        with pytest.raises(StoreError, match="lives 1 to"):
            store.presign("k", expires)


# -- encryption and locks, on moto -----------------------------------------------------------------------------------


def test_kms_encryption_is_asked_for_and_confirmed(moto: S3Server, new_bucket: Any) -> None:
    kms = boto3.client("kms", endpoint_url=moto.endpoint, region_name="us-east-1",
                       aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.close()
    bucket, part = new_bucket(moto), secrets.token_bytes(PART)
    with open_store(f"s3://{bucket}/p", **moto.options, sse_kms_key_id=key) as store:
        store.put("small", b"x")
        upload = store.begin("w", 1, PART)
        upload.put_part(0, part, sha(part))
        upload.complete()
    client = moto.client()
    for name in ("p/small", "p/w"):
        head = client.head_object(Bucket=bucket, Key=name)
        assert (head["ServerSideEncryption"], key in head["SSEKMSKeyId"]) == ("aws:kms", True)
    client.close()


def test_a_server_that_ignores_the_kms_request_is_refused(juicefs: S3Server, new_bucket: Any) -> None:
    with open_store(f"s3://{new_bucket(juicefs)}/p", **juicefs.options, sse_kms_key_id="some-key") as store:
        with pytest.raises(StoreError):
            store.put("small", b"x")
        with pytest.raises(StoreError):
            store.begin("w", 1, PART)


def test_locked_objects_cannot_be_deleted_and_a_bucket_without_locks_is_said(
    moto: S3Server, new_bucket: Any
) -> None:
    client = moto.client()
    bucket = "locked-" + secrets.token_hex(4)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    part = secrets.token_bytes(PART)
    with open_store(f"s3://{bucket}/p", **moto.options, lock_mode="COMPLIANCE", lock_days=30) as store:
        features = store.features()
        assert features.object_lock
        assert features.versioning
        upload = store.begin("w", 1, PART)
        upload.put_part(0, part, sha(part))
        info = upload.complete()
    head = client.head_object(Bucket=bucket, Key="p/w")
    assert head["ObjectLockMode"] == "COMPLIANCE"
    assert info.version
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key="p/w", VersionId=head["VersionId"])
    client.close()
    with (
        open_store(
            f"s3://{new_bucket(moto)}/p", **moto.options, lock_mode="GOVERNANCE", lock_days=1
        ) as store,
        pytest.raises(StoreError, match="lock_mode is set, but it is not turned on"),
    ):
        store.put("k", b"x")


def test_a_reader_without_write_rights_reads_and_is_told_what_could_not_be_tried(
    store: S3Store, control: Strict, strict: Any
) -> None:
    store.put("k", b"hello")
    with open_store(store.uri, **strict.options) as reader:
        control.fail("403", method="PUT", times=100)
        assert reader.get_range("k", 1, 3) == b"ell"
        assert "may not write" in reader.features().lacking["conditional_create"]


def test_a_folder_that_goes_away_under_a_write_is_made_again(store: S3Store, control: Strict) -> None:
    """A gateway over a file system, two writers: `NoSuchKey` as the answer to a PUT."""
    control.fail("404", method="PUT", times=2)
    store.put("k", b"hello")
    assert store.get_range("k", 0, 5) == b"hello"


def test_stores_that_share_a_client_probe_once_and_closing_one_closes_none(
    strict: Any, control: Strict, new_bucket: Any
) -> None:
    uri, shared = f"s3://{new_bucket(strict)}/p", SharedS3()
    with open_store(uri, **strict.options, shared=shared) as first:
        first.put("a", b"hello")
    asked = len(control.requests)
    assert any("probe" in path for _method, path, _size in control.requests)
    with open_store(uri, **strict.options, shared=shared) as second:
        second.put("b", b"hello")
        assert second.get_range("a", 0, 5) == b"hello"
    assert not any("probe" in path for _method, path, _size in control.requests[asked:])
    with open_store(uri, **strict.options) as alone:
        alone.put("c", b"hello")
    assert sum(path.endswith("/p/c") for _method, path, _size in control.requests) == 1


def test_the_services_opener_shares_for_five_minutes(strict: Any, new_bucket: Any, monkeypatch: Any) -> None:
    now = [1_000.0]
    monkeypatch.setattr("infra.parts.monotonic", lambda: now[0])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    opener = StoreOpener(Settings(dev=True, s3_endpoint_url=strict.options["endpoint_url"]))
    uri = f"s3://{new_bucket(strict)}/p"
    first, other = opener(uri), opener(f"{uri}/q")
    now[0] += 200
    assert opener(uri).calls.client is first.calls.client
    assert other.calls.client is not first.calls.client, "another address, another probe"
    now[0] += 101
    assert opener(uri).calls.client is not first.calls.client


def test_the_service_asks_for_the_encryption_and_the_lock_that_its_settings_name(monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    opener = StoreOpener(Settings(dev=True, s3_kms_key_id="key-1", s3_lock_mode="GOVERNANCE", s3_lock_days=3))
    store = opener("s3://bucket/p")
    assert isinstance(store, S3Store)
    assert store.write_options()["SSEKMSKeyId"] == "key-1"
    assert (store._lock_mode, store._lock_days) == ("GOVERNANCE", 3)
    with pytest.raises(StoreError, match="lock_days of at least 1"):
        StoreOpener(Settings(dev=True, s3_lock_mode="GOVERNANCE"))("s3://bucket/p")
    with pytest.raises(StoreError, match="lock_mode is GOVERNANCE or COMPLIANCE"):
        StoreOpener(Settings(dev=True, s3_lock_days=3))("s3://bucket/p")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_from_the_environment_needs_no_name_of_a_host_for_each_bucket(
    monkeypatch: Any, variable: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(variable, "https://s3.lab.internal:9000")
    with open_store("s3://bucket/p") as store:
        link = store.presign("k", 60)
    assert link is not None
    assert link.startswith("https://s3.lab.internal:9000/bucket/p/k?")
