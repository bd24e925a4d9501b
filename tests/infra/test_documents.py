import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.codec import CodecKeys
from infra.documents import SealedDocuments

KEYS = CodecKeys({"d1": bytes(range(32))})


@given(st.binary(max_size=2000), st.binary(max_size=50))
def test_a_text_comes_back_in_its_place(text, context):
    sealed = SealedDocuments(KEYS).seal(text, context=context)
    assert SealedDocuments(KEYS).open(sealed, context=context) == text
    assert len(text) < 4 or text not in sealed


def test_a_text_moved_to_another_place_does_not_open():
    sealed = SealedDocuments(KEYS).seal(b"canary", context=b"release-1/evidence-1")
    with pytest.raises(ValueError, match="another place"):
        SealedDocuments(KEYS).open(sealed, context=b"release-1/evidence-2")


def test_every_flipped_byte_and_every_cut_is_an_error():
    sealed = SealedDocuments(KEYS).seal(b"canary", context=b"c")
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        for broken in (bytes(flipped), sealed[:position]):
            with pytest.raises(ValueError, match=r"sealed document|not in the ring"):
                SealedDocuments(KEYS).open(broken, context=b"c")


def test_after_a_rotation_old_texts_open():
    sealed = SealedDocuments(KEYS).seal(b"canary", context=b"c")
    rotated = SealedDocuments(CodecKeys({"d2": bytes(32), "d1": bytes(range(32))}))
    assert rotated.open(sealed, context=b"c") == b"canary"
    with pytest.raises(ValueError, match="d1"):
        SealedDocuments(CodecKeys({"d2": bytes(32)})).open(sealed, context=b"c")
