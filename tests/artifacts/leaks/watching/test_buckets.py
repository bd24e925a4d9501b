"""S3 prefixes and access logs, against a real S3 server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from artifacts.leaks import (
    AddressPolicy,
    ObjectProfile,
    ObjectProfiles,
    ObjectStoreOptions,
    Outcome,
    ReferenceSet,
    SketchKey,
    scan,
)
from artifacts.leaks.watching import Candidate, Options, PollLimits, SourceError, Trouble, open_source
from tests.artifacts.leaks.watching.conftest import drain
from tests.artifacts.stores.servers import S3Server, moto_server

LINE = (
    "79a5 {bucket} [06/Feb/2026:00:00:38 +0000] {remote} {requester} {id} {operation} {key} "
    '"GET /{bucket}/{key} HTTP/1.1" {status} - 113 113 7 - "-" "agent" - x SigV4 - - host TLSv1.2 - -'
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_server() as made:
        yield made


@pytest.fixture
def store(server: S3Server, request: pytest.FixtureRequest) -> tuple[Any, str]:
    client = server.client()
    bucket = f"b{abs(hash(request.node.name)) % 10**9}"
    client.create_bucket(Bucket=bucket)
    return client, bucket


@pytest.fixture
def options(server: S3Server) -> Callable[..., Options]:
    def make(*, allow: bool = True, secret: str | None = None, **limits: Any) -> Options:
        address = server.endpoint.removeprefix("http://")
        return Options(
            addresses=AddressPolicy(allow=(address,) if allow else ()),
            objects=ObjectStoreOptions(
                server.endpoint, "us-east-1", server.access_key, secret or server.secret_key
            ),
            limits=PollLimits(**{"max_wait": 5.0, **limits}),
        )

    return make


def _spec(bucket: str, **more: Any) -> dict[str, Any]:
    return {"kind": "buckets", "name": "b", "prefixes": [f"s3://{bucket}/w/"], "min_bytes": 1, **more}


def _keys(found: list[Candidate]) -> set[str]:
    return {c.target.rpartition("/")[2] for c in found}


def test_new_and_changed_objects_whatever_their_order(
    store: tuple[Any, str], options: Callable[..., Options]
) -> None:
    client, bucket = store
    for i in range(130):
        client.put_object(Bucket=bucket, Key=f"w/{i:04}", Body=b"%d" % i)
    client.put_object(Bucket=bucket, Key="elsewhere", Body=b"x")
    source = open_source(_spec(bucket), options())
    found, last = drain(source, limit=100)
    assert _keys(found) == {f"{i:04}" for i in range(130)}
    assert drain(source, last.cursor)[0] == []
    client.put_object(Bucket=bucket, Key="w/0003", Body=b"changed")
    client.put_object(Bucket=bucket, Key="w/0000-new", Body=b"new")
    found, last = drain(source, last.cursor)
    assert {"0003", "0000-new"} <= _keys(found)
    assert len(found) < 20  # and some that share their heaps
    assert len({c.key for c in found}) == len(found)
    assert drain(source, last.cursor)[0] == []
    assert len(json.dumps(last.cursor)) < 8_000


def test_an_interrupted_pass_goes_on_and_loses_none(
    store: tuple[Any, str], options: Callable[..., Options]
) -> None:
    client, bucket = store
    for i in range(350):
        client.put_object(Bucket=bucket, Key=f"w/{i:04}", Body=b"x")
    source = open_source(_spec(bucket), options(max_requests=1))
    cursor: dict[str, Any] | None = None
    found: set[str] = set()
    for step in range(60):
        polled = source.poll(cursor, 100)
        found |= _keys(list(polled.candidates))
        if step % 3:  # every third time the cursor is lost
            cursor = json.loads(json.dumps(polled.cursor))
            if not polled.more and step >= 8:
                break
        if step < 8:
            client.put_object(Bucket=bucket, Key=f"w/{step:04}-later", Body=b"y")
    found |= _keys(drain(source, cursor)[0])
    assert found == {f"{i:04}" for i in range(350)} | {f"{i:04}-later" for i in range(8)}


def test_what_stands_in_the_way_is_said(store: tuple[Any, str], options: Callable[..., Options]) -> None:
    with pytest.raises(SourceError, match="NoSuchBucket") as caught:
        open_source(_spec("no-such-bucket-here"), options()).poll(None, 10)
    assert caught.value.trouble is Trouble.GONE
    with pytest.raises(SourceError, match="not public") as caught:
        open_source(_spec(store[1]), options(allow=False)).poll(None, 10)
    assert caught.value.trouble is Trouble.ADDRESS


def test_decoys_and_strangers_in_the_access_log(
    store: tuple[Any, str], options: Callable[..., Options]
) -> None:
    client, bucket = store
    common = {"bucket": "staged", "remote": "198.51.100.7", "status": "200"}
    ours, stranger = "arn:aws:sts::1:assumed-role/custody/x", "arn:aws:iam::9:user/eve"
    lines = [
        LINE.format(**common, requester=ours, id="R1", operation="REST.GET.OBJECT", key="w/model.bin"),
        LINE.format(**common, requester=stranger, id="R2", operation="REST.GET.OBJECT", key="w/model.bin"),
        LINE.format(
            **common, requester=stranger, id="R3", operation="REST.HEAD.OBJECT", key="w/passwords%2520old.bin"
        ),
        LINE.format(
            **common, requester=ours, id="R4", operation="REST.PUT.OBJECT", key="w/passwords%2520old.bin"
        ),
        LINE.format(
            **common | {"bucket": "other"},
            requester=stranger,
            id="R5",
            operation="REST.GET.OBJECT",
            key="w/a",
        ),
        "nonsense",
    ]
    client.put_object(Bucket=bucket, Key="log/2026-02-06-01-00-00-AAAA0001", Body="\n".join(lines).encode())
    spec = {
        "kind": "access_logs",
        "name": "log",
        "logs": f"s3://{bucket}/log/",
        "bucket": "staged",
        "expected": ["arn:aws:sts::1:assumed-role/custody/*"],
        "tokens": [{"id": "canary-1", "key": "w/passwords old.bin"}],
    }
    source = open_source(spec, options())
    polled = source.poll(None, 50)
    assert all(c.sighting for c in polled.candidates)
    assert [c.detail["object"] for c in polled.candidates] == ["w/model.bin", "w/passwords old.bin"]
    assert "the decoy canary-1" in polled.candidates[1].title
    assert "1 lines are no records" in polled.notes[0]
    assert source.poll(polled.cursor, 50).candidates == ()
    late = LINE.format(**common, requester=stranger, id="R0", operation="REST.GET.OBJECT", key="w/late")
    client.put_object(Bucket=bucket, Key="log/2026-02-05-20-00-00-BBBB0002", Body=late.encode())  # came late
    again = source.poll(polled.cursor, 50)
    assert [c.detail["object"] for c in again.candidates] == ["w/late"]


def test_scanning_an_object_and_a_prefix(
    store: tuple[Any, str], options: Callable[..., Options], server: S3Server
) -> None:
    import numpy as np
    from safetensors.numpy import save

    from artifacts.leaks import SignatureBuilder

    client, bucket = store
    rng = np.random.default_rng(3)
    tensors = {f"layer.{i}.weight": rng.standard_normal((256, 256)).astype("float32") for i in range(8)}
    data = save(tensors)
    key = SketchKey(b"k" * 32)
    builder = SignatureBuilder("model", key)
    builder.feed("model.safetensors", 0, data)
    builder.finish_file("model.safetensors")
    references = ReferenceSet(key, [builder.finish()])
    renamed = save({f"other.{i}": (v * 1.01).astype("float16") for i, v in enumerate(tensors.values())})
    client.put_object(Bucket=bucket, Key="w/odd name.bin", Body=renamed)
    given = options()
    for target in (f"s3://{bucket}/w/odd name.bin", f"s3://{bucket}/w/"):
        verdict = scan(target, references, addresses=given.addresses, objects=given.objects)
        assert verdict.outcome is Outcome.MATCH, verdict.reasons
        assert "Signature" not in json.dumps(verdict.document())  # signed links stay out of documents
    gone = scan(f"s3://{bucket}/nothing", references, addresses=given.addresses, objects=given.objects)
    assert gone.outcome is Outcome.INCONCLUSIVE
    assert "404" in gone.reasons[0]
    refused = scan(f"s3://{bucket}/w/", references, objects=given.objects)
    assert "not public" in refused.reasons[0]


def test_a_profile_reads_its_buckets_and_a_reported_bucket_is_asked_as_anybody_could(
    server: S3Server, store: tuple[Any, str], options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = store
    client.put_object(Bucket=bucket, Key="w/a.bin", Body=b"x" * 10)
    own = ObjectStoreOptions(server.endpoint, "us-east-1", server.access_key, server.secret_key)
    profiles = ObjectProfiles((ObjectProfile("own", frozenset({bucket}), own),))
    given = replace(options(), objects=ObjectStoreOptions(), profiles=profiles)
    found = open_source(_spec(bucket), given).poll(None, 10)
    assert _keys(list(found.candidates)) == {"a.bin"}
    assert found.candidates[0].detail["endpoint"] == server.endpoint

    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append({k.lower(): v for k, v in self.headers.items()})
            self.send_response(404)
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary-of-the-stores-own")
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=elsewhere.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        where = f"http://127.0.0.1:{elsewhere.server_port}"
        allowed = AddressPolicy(allow=("127.0.0.1",))
        # another bucket; and the profile's bucket at a store that is not the profile's
        for name in ("reported-bucket", bucket):
            asked = profiles.of_target(f"s3://{name}/w/a.bin", where)
            references = ReferenceSet(SketchKey(b"k" * 32), [])
            verdict = scan(f"s3://{name}/w/a.bin", references, addresses=allowed, objects=asked)
            assert verdict.outcome is Outcome.INCONCLUSIVE
    finally:
        elsewhere.shutdown()
        thread.join()
        elsewhere.server_close()
    assert len(seen) == 2
    for headers in seen:
        assert "authorization" not in headers
        assert "canary" not in str(headers)
        assert server.access_key not in str(headers)
    assert profiles.of(bucket).secret_key == server.secret_key
    assert profiles.of("other").anonymous
    assert server.secret_key not in repr(profiles)
