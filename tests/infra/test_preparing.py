"""`sluice prepare keyring`, and what custody says where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from artifacts.custody.local import LocalKeyring
from artifacts.errors import KeyProviderError
from infra.preparing.commands import app
from infra.provision import key_provider
from infra.settings import load_settings


@pytest.fixture
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("a long passphrase\n")
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SLUICE_KEYRING_PASSPHRASE_FILE", str(file))
    return file


def prepare() -> tuple[int, str]:
    done = CliRunner().invoke(app, ["keyring"])
    return done.exit_code, done.output


def test_a_keyring_is_made_once_and_never_over_another(passphrase: Path, tmp_path: Path) -> None:
    file = tmp_path / "data/custody/keyring"
    assert prepare() == (0, f"made: {file}\n")
    assert LocalKeyring.open(file, b"a long passphrase").health().ok
    before = file.read_bytes()
    assert prepare() == (0, "everything was there already\n")
    passphrase.write_text("another\n")
    code, said = prepare()
    assert code == 1
    assert "passphrase is wrong" in said
    assert file.read_bytes() == before


def test_without_a_passphrase_none_is_made(
    passphrase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_KEYRING_PASSPHRASE_FILE", "")
    code, said = prepare()
    assert code == 1
    assert "SLUICE_KEYRING_PASSPHRASE_FILE is not set" in said
    monkeypatch.setenv("SLUICE_KEY_PROVIDER", "openbao")
    monkeypatch.setenv("SLUICE_OPENBAO_ADDRESS", "https://openbao:8200")
    assert prepare()[0] == 1
    assert not (tmp_path / "data/custody").exists()


def test_custody_makes_no_keyring_by_itself_and_says_what_to_do(passphrase: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyProviderError, match=r"put it back from its backup.*sluice prepare keyring"):
        key_provider(load_settings())
    assert not (tmp_path / "data").exists()
