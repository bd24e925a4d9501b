"""The search for secrets finds what it is to find: planted in every form, in every kind of place."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import sqlite3
from pathlib import Path

import pytest

from tests.support.canary import Search, Secret, forms

TOKEN = Secret("token", b"slt_/canary+" + secrets.token_urlsafe(20).encode())
KEY = Secret("key", secrets.token_bytes(32))


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("secret", [TOKEN, KEY], ids=lambda s: s.name)
def test_a_planted_secret_is_found_in_every_form(secret: Secret, before: bytes) -> None:
    written = {
        "as it is": before + secret.value + b"after",
        "hex": before + secret.value.hex().encode(),
        "HEX": secret.value.hex().upper().encode() + before,
        "base64": base64.b64encode(before + secret.value + b"after"),
        "base64url": base64.urlsafe_b64encode(before + secret.value).rstrip(b"="),
        "repr": repr([before, secret.value]).encode(),
        "utf-16": secret.value.decode("latin-1").encode("utf-16-le"),
    }
    if secret is TOKEN:
        written["JSON"] = json.dumps({"a": secret.value.decode()}).encode()
        written["URL"] = b"?token=slt_%2Fcanary%2B" + secret.value.removeprefix(b"slt_/canary+")
    for form, data in written.items():
        search = Search([secret])
        search.look("planted", data)
        assert search.found, form
        if form in {"as it is", "hex", "HEX", "utf-16"}:
            assert form in {seen.form for seen in search.found}
        clean = Search([Secret("other", secrets.token_bytes(32))])
        clean.look("planted", data)
        assert clean.found == []
    assert {form.split("+")[0] for form, _ in forms(secret.value)} >= {
        "as it is",
        "hex",
        "HEX",
        "base64",
        "utf-16",
    }


def test_files_databases_packed_bytes_and_names_are_searched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "records.db") as database:
        database.execute("CREATE TABLE t (a BLOB, b TEXT)")
        database.execute("INSERT INTO t VALUES (?, 'witness')", (KEY.value,))
    database.close()
    (tmp_path / "a.log").write_text(f"line\nAuthorization: Bearer {TOKEN.value.decode()}\n")
    (tmp_path / "trace.gz").write_bytes(gzip.compress(b"x" * 1000 + KEY.value))
    (tmp_path / KEY.value.hex()).write_bytes(b"")
    home = tmp_path / "secrets"
    home.mkdir()
    (home / "key").write_bytes(KEY.value)
    search = Search([TOKEN, Secret(KEY.name, KEY.value, (home,))])
    search.folder(tmp_path, {"records.db": b"witness"})
    assert {(seen.secret, seen.where.split(" ")[0]) for seen in search.found} == {
        ("key", "records.db"),
        ("key", "trace.gz"),
        ("key", "the"),
        ("token", "a.log"),
    }
    assert KEY.value.hex() not in repr([seen for seen in search.found if seen.where == "records.db"])


def test_a_long_value_of_a_database_is_searched_whole_and_so_is_what_lies_between_two_pieces(
    tmp_path: Path,
) -> None:
    with sqlite3.connect(tmp_path / "histories.db") as database:
        database.execute("CREATE TABLE t (a BLOB)")
        for fill in range(4050, 4100):  # somewhere here a page of the file ends in the midst of it
            database.execute("INSERT INTO t VALUES (?)", (b"x" * fill + KEY.value + b"y" * 5000,))
    database.close()
    search = Search([KEY])
    search.folder(tmp_path, {})
    assert ("histories.db · t", "as it is") in {(seen.where, seen.form) for seen in search.found}
    apart = Search([KEY])
    apart.look("two pieces", b"z" * ((1 << 22) - 16) + KEY.value)
    assert [seen.form for seen in apart.found] == ["as it is"]


def test_a_place_that_was_not_searched_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("something else")
    with pytest.raises(AssertionError, match="not searched"):
        Search([TOKEN]).folder(tmp_path, {"*.log": b"the release"})
