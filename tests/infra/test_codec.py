import base64
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from infra.codec import (
    CodecKeys,
    CodecKeysError,
    EncryptingCodec,
    PlaintextError,
    TamperedError,
    UnknownKeyError,
    write_new_keys,
)

OLD = {"old": bytes(32)}
NEW = {"new": bytes(range(32))}


def codec(keys):
    return EncryptingCodec(CodecKeys(keys))


def payload(data=b"canary"):
    return Payload(metadata={"encoding": b"json/plain", "type": b"Canary"}, data=data)


async def sealed(keys, data=b"canary"):
    (result,) = await codec(keys).encode([payload(data)])
    return result


@given(st.binary(max_size=4096), st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=3))
@settings(max_examples=50, deadline=None)
async def test_what_is_encrypted_comes_back_whole(data, metadata):
    original = Payload(metadata=metadata, data=data)
    encoded = await codec(NEW).encode([original, original])
    assert await codec(NEW).decode(encoded) == [original, original]
    assert encoded[0].data != encoded[1].data


async def test_neither_data_nor_metadata_show():
    raw = (await sealed(NEW)).SerializeToString()
    assert b"canary" not in raw
    assert b"Canary" not in raw
    assert b"json" not in raw


async def test_after_a_rotation_old_payloads_open_and_new_ones_use_the_new_key():
    rotated = codec(NEW | OLD)
    assert await rotated.decode([await sealed(OLD)]) == [payload()]
    (fresh,) = await rotated.encode([payload()])
    assert await codec(NEW).decode([fresh]) == [payload()]


async def test_a_key_rotated_out_too_early_is_an_error_that_names_it():
    with pytest.raises(UnknownKeyError, match=r"'old'.*new"):
        await codec(NEW).decode([await sealed(OLD)])


async def test_another_key_under_the_same_id_opens_nothing():
    with pytest.raises(TamperedError):
        await codec({"old": bytes(31) + b"\1"}).decode([await sealed(OLD)])


async def test_every_flipped_byte_is_an_error():
    original = await sealed(OLD)
    for position in range(len(original.data)):
        changed = Payload()
        changed.CopyFrom(original)
        data = bytearray(original.data)
        data[position] ^= 1
        changed.data = bytes(data)
        with pytest.raises(TamperedError):
            await codec(OLD).decode([changed])


async def test_every_truncation_is_an_error():
    original = await sealed(OLD)
    for length in range(len(original.data)):
        cut = Payload(metadata=original.metadata, data=original.data[:length])
        with pytest.raises(TamperedError):
            await codec(OLD).decode([cut])


async def test_a_payload_relabelled_with_another_key_of_the_ring_is_an_error():
    changed = await sealed(OLD)
    changed.metadata["sluice-key-id"] = b"twin"
    with pytest.raises(TamperedError):
        await codec({"twin": OLD["old"]} | OLD).decode([changed])


async def test_a_payload_in_clear_is_refused_and_not_passed_through():
    with pytest.raises(PlaintextError):
        await codec(OLD).decode([payload()])


async def test_the_words_of_the_server_about_a_cancelled_activity_pass_and_nothing_like_them():
    """The server writes them itself, in clear; a workflow that could not read them could never go on."""
    said = Payload(metadata={"encoding": b"json/plain"}, data=b'"ACTIVITY_ID_NOT_STARTED"')
    assert await codec(OLD).decode([said]) == [said]
    for changed in (
        Payload(metadata={"encoding": b"json/plain"}, data=b'"ACTIVITY_ID_STARTED"'),
        Payload(metadata={"encoding": b"json/plain", "type": b"x"}, data=said.data),
        Payload(metadata={"encoding": b"binary/plain"}, data=said.data),
    ):
        with pytest.raises(PlaintextError):
            await codec(OLD).decode([changed])


def test_a_new_file_of_keys_is_readable_by_its_owner_alone_and_never_overwritten(tmp_path):
    path = tmp_path / "secrets" / "codec.keys"
    write_new_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_new_keys(path)
    assert path.read_bytes() == before
    CodecKeys.read(path)


GOOD = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "at least one"),
        ("# nothing\n\n", "at least one"),
        (f"a:{GOOD}\na:{GOOD}\n", "line 2: this id was there before"),
        ("a:canary!!\n", "line 1: the key is not base64"),
        ("a:Y2FuYXJ5\n", "32 bytes are needed, not 6"),
        (f"a b:{GOOD}\n", "use 1 to 64 of"),
        (f"{GOOD}\n", "is not id:base64"),
        ("ä:canary\n", "is not ASCII"),
    ],
)
def test_a_malformed_file_of_keys_is_an_error_that_says_where_and_never_what(tmp_path, text, reason):
    path = tmp_path / "codec.keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CodecKeysError) as caught:
        CodecKeys.read(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "canary" not in str(caught.value)
    assert GOOD not in str(caught.value)


def test_a_ring_shows_ids_and_never_keys():
    assert repr(CodecKeys(NEW | OLD)) == "CodecKeys(new, old)"
