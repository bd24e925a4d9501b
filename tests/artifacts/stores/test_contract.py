"""What every store keeps, whatever it is made of: the same tests over a directory, three S3 servers and the Hub."""

from __future__ import annotations

import hashlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from artifacts.errors import ArtifactError, ObjectExists, ObjectMissing, StaleObject, StoreError
from artifacts.stores import PartInfo, Store, Upload, open_store, read_parts
from tests.artifacts.stores.conftest import Place

MIB = 1024 * 1024
PART = 5 * MIB  # the smallest that S3 takes
KINDS = ["directory", "moto", "strict", "juicefs", "hub"]

pytestmark = pytest.mark.stack


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Place:
    kind = request.param
    if kind == "directory":
        return Place(kind, f"dir:{request.getfixturevalue('tmp_path')}/sealed")
    if kind == "hub":
        return request.getfixturevalue("hub_place")
    server = request.getfixturevalue(kind)
    if kind == "strict":
        server.control.calm()
    bucket = request.getfixturevalue("new_bucket")(server)
    return Place(kind, f"s3://{bucket}/some/prefix", dict(server.options))


@pytest.fixture
def store(place: Place) -> Store:
    with place.open() as opened:
        yield opened


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parts_of(*sizes: int) -> list[bytes]:
    return [secrets.token_bytes(size) for size in sizes]


def fill(upload: Upload, parts: list[bytes]) -> None:
    for index, part in enumerate(parts):
        upload.put_part(index, part, sha(part))


def test_put_creates_and_the_same_bytes_again_are_fine(store: Store) -> None:
    first = store.put("manifests/one.json", b"hello")
    again = store.put("manifests/one.json", b"hello")
    assert (first.key, first.size, first.etag) == (again.key, 5, again.etag)
    assert store.get_range("manifests/one.json", 0, 5) == b"hello"


@pytest.mark.parametrize("other", [b"HELLO", b"hello!", b""], ids=["same-size", "longer", "empty"])
def test_put_never_overwrites(store: Store, other: bytes) -> None:
    store.put("k", b"hello")
    with pytest.raises(ObjectExists, match="overwritten"):
        store.put("k", other)
    assert store.get_range("k", 0, 5) == b"hello"


def test_put_takes_a_known_hash_and_any_bytes_like(store: Store) -> None:
    store.put("a", bytearray(b"abc"), sha(b"abc"))
    store.put("b", memoryview(b"xabcx")[1:4], sha(b"abc"))
    assert store.get_range("a", 0, 3) == store.get_range("b", 0, 3) == b"abc"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    info = store.stat("empty")
    assert info is not None
    assert info.size == 0
    assert store.get_range("empty", 0, 0) == b""


def test_stat_of_nothing_is_none_and_reading_it_is_an_error(store: Store) -> None:
    assert store.stat("no/such") is None
    with pytest.raises(ObjectMissing):
        store.get_range("no/such", 0, 1)


def test_parts_become_one_object_only_when_complete(store: Store) -> None:
    parts = parts_of(PART, PART, 1234)
    upload = store.begin("weights/model.safetensors", 3, PART)
    for index in (2, 0, 1):  # any order
        upload.put_part(index, parts[index], sha(parts[index]))
    assert store.stat("weights/model.safetensors") is None
    assert [o.key for o in store.list()] == []
    info = upload.complete()
    assert info.size == 2 * PART + 1234
    assert upload.complete() == info
    whole = b"".join(parts)
    assert store.get_range(info.key, 0, info.size) == whole
    assert store.get_range(info.key, PART - 3, 7) == whole[PART - 3 : PART + 4]
    assert store.get_range(info.key, info.size - 1, 1) == whole[-1:]
    assert [o.key for o in store.list()] == ["weights/model.safetensors"]
    assert read_parts(store, info.key, PART) == {i: PartInfo(i, len(p), sha(p)) for i, p in enumerate(parts)}


def test_a_cut_off_upload_is_found_again_with_the_parts_that_it_has(place: Place) -> None:
    parts = parts_of(PART, PART, 99)
    with place.open() as before:
        fill(before.begin("w", 3, PART), parts[:2])
    with place.open() as after:
        upload = after.begin("w", 3, PART)
        assert upload.parts() == {i: PartInfo(i, PART, sha(parts[i])) for i in (0, 1)}
        upload.put_part(2, parts[2], sha(parts[2]))
        assert upload.complete().size == 2 * PART + 99
        assert after.get_range("w", 0, 2 * PART + 99) == b"".join(parts)


def test_putting_a_part_again_is_harmless_and_other_bytes_replace_it(store: Store) -> None:
    old, new, last = parts_of(PART, PART, 10)
    upload = store.begin("w", 2, PART)
    for part in (old, old, new):
        upload.put_part(0, part, sha(part))
    upload.put_part(1, last, sha(last))
    assert upload.parts()[0].sha256 == sha(new)
    upload.complete()
    assert store.get_range("w", 0, PART + 10) == new + last


def test_parts_from_many_threads_at_once(store: Store) -> None:
    parts = parts_of(PART, PART, PART, 17)
    upload = store.begin("w", 4, PART)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda i: upload.put_part(i, parts[i], sha(parts[i])), range(4)))
    assert {p.index: p for p in done} == upload.parts()
    upload.complete()
    assert store.get_range("w", 0, 3 * PART + 17) == b"".join(parts)


def test_an_upload_whose_parts_do_not_fit_the_new_shape_is_begun_anew(store: Store) -> None:
    small, big, last = parts_of(PART, PART + 5, 3)
    store.begin("w", 2, PART).put_part(0, small, sha(small))
    upload = store.begin("w", 2, PART + 5)
    assert upload.parts() == {}
    fill(upload, [big, last])
    upload.complete()
    assert store.get_range("w", 0, PART + 8) == big + last


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_dropped_part_is_an_error_not_a_shorter_object(store: Store, missing: int) -> None:
    parts = parts_of(PART, PART, 5)
    upload = store.begin("w", 3, PART)
    for index in {0, 1, 2} - {missing}:
        upload.put_part(index, parts[index], sha(parts[index]))
    with pytest.raises(StoreError, match=f"1 of 3 parts missing: {missing}"):
        upload.complete()
    assert store.stat("w") is None


@pytest.mark.parametrize(
    ("index", "size"), [(0, PART - 1), (0, PART + 1), (1, PART + 1), (1, 0), (2, 5), (-1, PART)]
)
def test_a_part_of_the_wrong_size_or_place_is_refused(store: Store, index: int, size: int) -> None:
    data = bytes(size)
    with pytest.raises(StoreError, match=r"part"):
        store.begin("w", 2, PART).put_part(index, data, sha(data))


def test_an_upload_onto_an_existing_object_is_refused_at_the_start(store: Store) -> None:
    store.put("w", b"first")
    with pytest.raises(ObjectExists):
        store.begin("w", 1, PART)


def test_an_object_that_appears_during_an_upload_is_not_overwritten(place: Place, store: Store) -> None:
    (part,) = parts_of(100)
    upload = store.begin("w", 1, PART)
    upload.put_part(0, part, sha(part))
    with place.open() as other:
        other.put("w", b"faster")
    with pytest.raises(ObjectExists):
        upload.complete()
    store.stat("w")
    assert store.get_range("w", 0, 6) == b"faster"


def test_an_aborted_upload_leaves_nothing(store: Store) -> None:
    (part,) = parts_of(PART)
    upload = store.begin("w", 2, PART)
    upload.put_part(0, part, sha(part))
    upload.abort()
    upload.abort()
    assert store.stat("w") is None
    assert store.begin("w", 2, PART).parts() == {}


def test_stale_uploads_are_aborted_and_fresh_ones_are_not(store: Store) -> None:
    (part,) = parts_of(PART)
    store.begin("folder/w", 2, PART).put_part(0, part, sha(part))
    assert store.abort_stale(timedelta(hours=1)) == ()
    assert store.begin("folder/w", 2, PART).parts().keys() == {0}
    assert store.abort_stale(timedelta(seconds=-5)) == ("folder/w",)
    assert store.begin("folder/w", 2, PART).parts() == {}


@pytest.mark.parametrize(("start", "length"), [(0, 11), (10, 1), (11, 0), (-1, 2), (3, -1), (5, 6)])
def test_a_range_that_leaves_the_object_is_an_error(store: Store, start: int, length: int) -> None:
    store.put("k", b"0123456789")
    with pytest.raises(StoreError, match="outside of its 10 bytes"):
        store.get_range("k", start, length)


def test_an_object_replaced_behind_our_back_is_stale_until_looked_at_anew(place: Place, store: Store) -> None:
    store.put("k", b"one")
    assert store.get_range("k", 0, 3) == b"one"
    with place.open() as other:
        other.delete("k")
        other.put("k", b"two")
    with pytest.raises(StaleObject):
        store.get_range("k", 0, 3)
    store.stat("k")
    assert store.get_range("k", 0, 3) == b"two"


def test_list_gives_key_order_and_only_the_prefix(store: Store) -> None:
    keys = ["a", "a-b", "a/b", "a0", "b/c/d", "b/c.e", "ü/x"]
    keys.remove("a")  # a directory cannot hold "a" and "a/b" at once
    for key in keys:
        store.put(key, key.encode())
    assert [o.key for o in store.list()] == sorted(keys, key=str.encode)
    assert [o.key for o in store.list("b/c")] == ["b/c.e", "b/c/d"]
    assert [(o.key, o.size) for o in store.list("a/")] == [("a/b", 3)]
    assert [o.key for o in store.list("nothing")] == []


def test_bookkeeping_never_shows(store: Store) -> None:
    store.features()
    (part,) = parts_of(PART)
    store.begin("w", 2, PART).put_part(0, part, sha(part))
    assert list(store.list()) == []
    assert list(store.list(".sl")) == []


def test_delete_frees_the_key_and_a_missing_one_is_fine(store: Store) -> None:
    store.put("k", b"one")
    store.delete("k")
    store.delete("k")
    store.delete("never/was")
    assert store.stat("k") is None
    assert store.put("k", b"two").size == 3


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", ".sluice/uploads/x", "a\\b", "a\nb", "a\x00b",
     "x" * 256, "d/" * 500 + "x", "\ud800"],
)  # fmt: skip
def test_a_key_that_leaves_the_store_is_refused_everywhere(store: Store, key: str) -> None:
    for attempt in (
        lambda: store.put(key, b""),
        lambda: store.begin(key, 1, PART),
        lambda: store.stat(key),
        lambda: store.get_range(key, 0, 0),
        lambda: store.delete(key),
        lambda: store.presign(key, 60),
    ):
        with pytest.raises(StoreError, match="store key"):
            attempt()


def test_unusual_but_valid_keys_work(store: Store) -> None:
    for key in ["with space", "plus+and%25&amp;", "ünï/☃", "tilde~/#hash?q=1", ".hidden"]:
        store.put(key, key.encode())
        assert store.get_range(key, 0, len(key.encode())) == key.encode()
        assert [o.key for o in store.list(key)] == [key]


def test_of_two_writers_at_once_one_wins_and_the_other_is_told(place: Place) -> None:
    barrier = threading.Barrier(2)

    def write(data: bytes) -> str:
        with place.open() as store:
            atomic = store.features().conditional_create
            barrier.wait()
            try:
                store.put("race", data)
            except ArtifactError:
                return "refused" if atomic else "maybe"
            return "won"

    with ThreadPoolExecutor(2) as pool:
        outcome = sorted(pool.map(write, [b"aaaa", b"bbbb"]))
    with place.open() as store:
        if store.features().conditional_create:
            assert outcome == ["refused", "won"]
        else:  # the race that features() tells of; whatever happened, the object is one of the two, whole
            assert "could still replace" in store.features().lacking["conditional_create"]
        assert store.get_range("race", 0, 4) in {b"aaaa", b"bbbb"}


def test_presigned_urls_work_without_credentials_or_are_said_to_be_missing(store: Store) -> None:
    store.put("k", b"0123456789")
    url = store.presign("k", 60)
    assert (url is not None) == store.features().presign
    if url:
        answer = httpx.get(url, headers={"Range": "bytes=2-4"})
        assert (answer.status_code, answer.content) == (206, b"234")


def test_features_say_what_the_live_server_does(place: Place, store: Store) -> None:
    features = store.features()
    has = {name for name in ("conditional_create", "part_checksums", "resume", "presign", "range_reads")
           if getattr(features, name)}  # fmt: skip
    assert (
        has
        == {
            "directory": {"conditional_create", "resume", "range_reads"},
            # moto 5.2 stores checksums without looking at the bytes
            "moto": {"conditional_create", "resume", "presign", "range_reads"},
            "strict": {"conditional_create", "part_checksums", "resume", "presign", "range_reads"},
            # the gateway knows neither If-None-Match nor checksum headers, but checks the signed payload hash
            "juicefs": {"part_checksums", "resume", "presign", "range_reads"},
            "hub": {"conditional_create", "resume", "range_reads"},
        }[place.kind]
    )
    assert all(features.lacking[name] for name in set(features.__slots__) - has - {"lacking"}
               if not getattr(features, name))  # fmt: skip
    assert len(features.describe()) == len(features.__slots__) - 1


def test_damage_on_the_way_is_refused_where_the_server_checks(store: Store) -> None:
    right, wrong = parts_of(PART, PART)
    upload = store.begin("w", 2, PART)
    if store.features().part_checksums:
        with pytest.raises(StoreError, match="another SHA-256"):
            upload.put_part(0, wrong, sha(right))
        assert upload.parts() == {}


def test_an_unknown_address_is_explained(store: Store) -> None:
    for uri in ("", "s3", "ftp://x/y", "dir:"):
        with pytest.raises(StoreError, match="expected dir:"):
            open_store(uri)
    assert store.uri.split(":")[0] in repr(store).lower() or "store" in repr(store).lower()
