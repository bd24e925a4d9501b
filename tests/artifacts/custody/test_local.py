"""The keyring file: its passphrase, its mode, its writers, and what a meddler can do to it."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.custody.base import wrapping_context
from artifacts.custody.errors import KeyringInvalid, KeyVersionGone
from artifacts.custody.local import Argon2Cost, InsecureUnprotectedKeyring, LocalKeyring, passphrase_from_os
from artifacts.errors import KeyProviderError

CHEAP = Argon2Cost(iterations=1, lanes=1, memory_kib=64)
CONTEXT = wrapping_context("gpt-2", "weights-large", "sha256:" + "1" * 64)
ROOT = b"r" * 32
PASSPHRASE = b"correct horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "keyring.json"


@pytest.fixture
def keyring(path):
    return LocalKeyring.create(path, PASSPHRASE, cost=CHEAP)


def test_a_keyring_opens_again(keyring, path):
    wrapped = keyring.wrap(ROOT, CONTEXT)
    assert LocalKeyring.open(path, PASSPHRASE).unwrap(wrapped, CONTEXT) == ROOT


def test_an_unprotected_keyring_warns_each_time_it_is_opened(path):
    with pytest.warns(InsecureUnprotectedKeyring, match="INSECURE"):
        keyring = LocalKeyring.create(path, None)
    assert not keyring.describe().protected
    assert "WITHOUT" in keyring.describe().detail
    with pytest.warns(InsecureUnprotectedKeyring):
        again = LocalKeyring.open(path, None)
    assert again.unwrap(keyring.wrap(ROOT, CONTEXT), CONTEXT) == ROOT


def test_a_protected_keyring_does_not_warn(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocalKeyring.create(path, PASSPHRASE, cost=CHEAP)
        assert LocalKeyring.open(path, PASSPHRASE).describe().protected


@pytest.mark.parametrize(
    ("passphrase", "told"), [(b"wrong", "wrong"), (None, "give its passphrase"), (b"", "empty passphrase")]
)
def test_a_wrong_passphrase_opens_nothing(keyring, path, passphrase, told):
    with pytest.raises(KeyringInvalid, match=told):
        LocalKeyring.open(path, passphrase)


def test_protection_cannot_be_taken_off_by_editing_the_file(keyring, path):
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "protection": None}))
    with pytest.raises(KeyringInvalid, match="though a passphrase was given"):
        LocalKeyring.open(path, PASSPHRASE)
    with pytest.warns(InsecureUnprotectedKeyring), pytest.raises(KeyringInvalid, match="damaged"):
        LocalKeyring.open(path, None)


def test_the_default_cost_is_that_of_rfc_9106(path):
    LocalKeyring.create(path, PASSPHRASE)
    protection = json.loads(path.read_text())["protection"]
    assert (protection["iterations"], protection["lanes"], protection["memory_kib"]) == (3, 4, 65_536)
    LocalKeyring.open(path, PASSPHRASE)


def test_a_hostile_cost_does_not_exhaust_memory(keyring, path):
    raw = json.loads(path.read_text())
    raw["protection"]["memory_kib"] = 2**31
    path.write_text(json.dumps(raw))
    with pytest.raises(KeyringInvalid, match="out of bounds"):
        LocalKeyring.open(path, PASSPHRASE)


def test_the_file_is_for_its_owner_alone(keyring, path):
    assert path.stat().st_mode & 0o777 == 0o600
    keyring.rotate()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o640)
    with pytest.raises(KeyringInvalid, match="chmod 600"):
        LocalKeyring.open(path, PASSPHRASE)


def test_no_key_stands_in_the_file_in_clear(keyring, path):
    text = path.read_text()
    for key in keyring._keys.versions.values():
        assert key.hex() not in text
    assert "keys" not in text


def test_nothing_is_overwritten(keyring, path):
    before = path.read_bytes()
    with pytest.raises(KeyringInvalid, match="something is there already"):
        LocalKeyring.create(path, PASSPHRASE, cost=CHEAP)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_the_keyring_as_it_was(keyring, path, monkeypatch):
    before = path.read_bytes()
    wrapped = keyring.wrap(ROOT, CONTEXT)

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("artifacts.custody.local.os.fsync", full)
    with pytest.raises(KeyringInvalid, match="No space left"):
        keyring.rotate()
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.endswith(".tmp")] == []
    assert LocalKeyring.open(path, PASSPHRASE).unwrap(wrapped, CONTEXT) == ROOT
    assert LocalKeyring.open(path, PASSPHRASE).unwrap(keyring.wrap(ROOT, CONTEXT), CONTEXT) == ROOT


def test_a_rotation_by_another_process_is_noticed(keyring, path):
    other = LocalKeyring.open(path, PASSPHRASE)
    assert other.rotate() == 2
    wrapped = other.wrap(ROOT, CONTEXT)
    assert wrapped.version == 2
    assert keyring.unwrap(wrapped, CONTEXT) == ROOT


def _rotate_five_times(path: str) -> list[int]:
    keyring = LocalKeyring.open(path, PASSPHRASE)
    return [keyring.rotate() for _ in range(5)]


def test_rotations_at_once_lose_no_version(keyring, path):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        versions = [version for made in pool.map(_rotate_five_times, [str(path)] * 3) for version in made]
    assert sorted(versions) == list(range(2, 17))
    assert sorted(LocalKeyring.open(path, PASSPHRASE)._keys.versions) == list(range(1, 17))


def test_last_weeks_keyring_restored_is_refused_by_who_saw_the_newer_one(keyring, path):
    old = path.read_bytes()
    keyring.rotate()
    wrapped = keyring.wrap(ROOT, CONTEXT)
    path.write_bytes(old)
    assert not keyring.health().ok
    with pytest.raises(KeyringInvalid, match="older"):
        keyring.rotate()
    with pytest.raises(KeyVersionGone, match="no version 2"):
        LocalKeyring.open(path, PASSPHRASE).unwrap(wrapped, CONTEXT)


def test_another_keyring_in_its_place_is_refused(keyring, path, tmp_path):
    LocalKeyring.create(tmp_path / "other", PASSPHRASE, cost=CHEAP)
    (tmp_path / "other").replace(path)
    with pytest.raises(KeyringInvalid, match="replaced"):
        keyring.rotate()


def test_a_retired_version_opens_no_more(keyring, path):
    wrapped = keyring.wrap(ROOT, CONTEXT)
    with pytest.raises(KeyringInvalid, match="rotate first"):
        keyring.retire(2)
    keyring.rotate()
    moved = keyring.rewrap(wrapped, CONTEXT, CONTEXT)
    keyring.retire(2)
    for opened in (keyring, LocalKeyring.open(path, PASSPHRASE)):
        assert opened.unwrap(moved, CONTEXT) == ROOT
        with pytest.raises(KeyVersionGone):
            opened.unwrap(wrapped, CONTEXT)


def test_a_changed_passphrase_opens_and_the_old_one_does_not(keyring, path):
    wrapped = keyring.wrap(ROOT, CONTEXT)
    keyring.change_passphrase(b"battery staple", cost=CHEAP)
    assert LocalKeyring.open(path, b"battery staple").unwrap(wrapped, CONTEXT) == ROOT
    with pytest.raises(KeyringInvalid):
        LocalKeyring.open(path, PASSPHRASE)


def test_a_missing_file_says_so(path):
    with pytest.raises(KeyringInvalid, match="cannot be read"):
        LocalKeyring.open(path, PASSPHRASE)


def test_the_passphrase_may_come_from_the_operating_system(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(KeyringInvalid, match="no passphrase"):
        passphrase_from_os("test-keyring")
    (tmp_path / "test-keyring").write_bytes(b"correct horse\n")
    assert passphrase_from_os("test-keyring") == PASSPHRASE
    (tmp_path / "test-keyring").write_bytes(b"\n")
    with pytest.raises(KeyringInvalid, match="is empty"):
        passphrase_from_os("test-keyring")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.integers(0, 5000), st.integers(1, 255))
def test_any_altered_byte_of_the_file_is_found_or_means_nothing(keyring, path, at, bits):
    wrapped = keyring.wrap(ROOT, CONTEXT)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[at % len(bad)] ^= bits
    path.write_bytes(bytes(bad))
    try:
        assert LocalKeyring.open(path, PASSPHRASE).unwrap(wrapped, CONTEXT) == ROOT
        assert json.loads(bytes(bad)) == json.loads(good)
    except KeyProviderError:
        pass
    finally:
        path.write_bytes(good)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.dictionaries(st.text(max_size=10), st.text(max_size=10)).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_file_raises_anything_but_a_key_provider_error(tmp_path, content):
    path = tmp_path / "fuzzed"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(KeyringInvalid):
        LocalKeyring.open(path, PASSPHRASE)
