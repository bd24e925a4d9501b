"""Reading over HTTP and through fsspec, from servers that behave and servers that do not."""

from __future__ import annotations

import io
import logging
import pickle
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from artifacts.errors import (
    AccessDenied,
    ArtifactError,
    IntegrityError,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from artifacts.filesystem import SealedFileSystem
from artifacts.manifest import file_prefix
from artifacts.reader import open_sealed
from artifacts.sealing import SealedArtifact
from tests.artifacts.sealed_world import World, tree

TOKEN = "X-Amz-Signature=s3cr3t-t0ken"


class Handler(BaseHTTPRequestHandler):
    root: ClassVar[Path]
    plan: ClassVar[list[str]]

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self.root / urllib.parse.unquote(urllib.parse.urlsplit(self.path).path.lstrip("/"))
        how = self.plan.pop(0) if self.plan else "well"
        if how.isdigit():
            self.send_response(int(how))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not path.is_file():
            self.send_error(404)
            return
        data, span = path.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert span
        first, last = int(span[1]), int(span[2])
        if last >= len(data):
            self.send_error(416)
            return
        body = data[first : last + 1]
        said = f"bytes {first}-{last}/{len(data)}"
        if how == "whole":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        if how == "other range":
            said = f"bytes {first + 1}-{last + 1}/{len(data)}"
        if how == "shifted bytes":
            body = body[1:] + b"x"
        self.send_response(206)
        self.send_header("Content-Range", said)
        if how == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if how == "endless":
            self.end_headers()
            try:
                for _ in range(2000):
                    self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if how == "cut" else body)
        if how == "cut":
            self.close_connection = True


class Web:
    def __init__(self, world: World, sealed: SealedArtifact, port: int, plan: list[str]) -> None:
        self.world, self.sealed, self.plan = world, sealed, plan
        self.base = f"http://127.0.0.1:{port}/{file_prefix(sealed.artifact_id)}"

    def urls(self) -> dict[str, str]:
        return {f.path: f"{self.base}{urllib.parse.quote(f.path)}?{TOKEN}" for f in self.sealed.files}


@pytest.fixture
def web(world: World) -> Iterator[Web]:
    (world.source / "spaced name #1.bin").write_bytes(b"odd name")
    plan: list[str] = []
    handler = type("Bound", (Handler,), {"root": world.folder / "store", "plan": plan})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Web(world, world.seal(), server.server_address[1], plan)
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artifacts.sources.time.sleep", lambda seconds: None)


@pytest.mark.parametrize("form", ["presigned", "base"])
def test_a_partner_fetches_over_http(web: Web, tmp_path: Path, form: str) -> None:
    source = web.urls() if form == "presigned" else web.base
    web.world.fetch(web.sealed, tmp_path / "copy", source=source)
    assert tree(tmp_path / "copy") == tree(web.world.source)


def test_a_server_that_fails_now_and_then_is_asked_again(web: Web, tmp_path: Path) -> None:
    web.plan += ["500", "cut", "429", "cut", "503", "cut", "well"] * 3
    web.world.fetch(web.sealed, tmp_path / "copy", source=web.urls(), workers=1)
    assert tree(tmp_path / "copy") == tree(web.world.source)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("403", AccessDenied), ("401", AccessDenied), ("404", ObjectMissing), ("500", StoreUnavailable),
        ("429", StoreUnavailable), ("cut", StoreUnavailable), ("418", StoreError), ("whole", StoreError),
        ("other range", StoreError), ("gzip", StoreError), ("endless", StoreError), ("shifted bytes", IntegrityError),
    ],
)  # fmt: skip
def test_a_server_that_misbehaves_gets_an_error_and_no_token_shows(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, error: type[Exception]
) -> None:
    caplog.set_level(logging.DEBUG)
    web.plan += [how] * 200
    with pytest.raises(error) as caught:
        web.world.fetch(web.sealed, tmp_path / "copy", source=web.urls(), components=["weights"])
    assert not (tmp_path / "copy" / "many.bin").exists()
    seen = (
        str(caught.value)
        + repr(caught.value)
        + "".join(r.getMessage() for r in caplog.records if r.name == "httpx")
    )
    assert "s3cr3t" not in seen


def test_a_missing_or_superfluous_link_is_an_error(web: Web, tmp_path: Path) -> None:
    urls = web.urls()
    with pytest.raises(IntegrityError, match="not in the manifest"):
        web.world.fetch(web.sealed, tmp_path / "a", source={**urls, "extra.bin": urls["one.bin"]})
    del urls["one.bin"]
    with pytest.raises(ObjectMissing, match="no link"):
        web.world.fetch(web.sealed, tmp_path / "b", source=urls)


def test_a_sealed_file_opens_from_its_url(web: Web) -> None:
    entry = web.world.manifest(web.sealed).file("many.bin")
    key = web.world.payload(web.sealed).key("many.bin")
    with open_sealed(web.urls()["many.bin"], web.sealed.artifact_id, entry, key) as file:
        file.seek(-100, io.SEEK_END)
        assert file.read() == (web.world.source / "many.bin").read_bytes()[-100:]


# --- fsspec ---------------------------------------------------------------------------------------------------------


def filesystem(world: World, sealed: SealedArtifact, source: Any = None, **payload: Any) -> SealedFileSystem:
    found = fsspec.filesystem(
        "sealed",
        source=source or world.store,
        manifest=sealed.manifest,
        envelope=world.payload(sealed, **payload),
    )
    assert isinstance(found, SealedFileSystem)
    return found


def test_fsspec_lists_and_reads(world: World) -> None:
    sealed = world.seal()
    fs = filesystem(world, sealed)
    assert set(fs.find("")) == set(tree(world.source))
    assert fs.ls("tokenizer", detail=False) == ["tokenizer/vocab.txt"]
    assert fs.isdir("tokenizer")
    assert fs.info("sealed://many.bin")["size"] == len(tree(world.source)["many.bin"])
    for path, content in tree(world.source).items():
        assert fs.cat(path) == content
    data = tree(world.source)["many.bin"]
    assert fs.cat_file("many.bin", 5, 100_000) == data[5:100_000]
    assert fs.cat_file("many.bin", -7) == data[-7:]
    with fs.open("many.bin") as file:
        file.seek(70_000)
        assert file.read(10) == data[70_000:70_010]
    with fsspec.open(
        "sealed://config.json", source=world.store, manifest=sealed.manifest, envelope=world.payload(sealed)
    ) as file:
        assert file.read() == tree(world.source)["config.json"]
    assert fs.glob("*.bin")


def test_fsspec_works_over_http_and_directories(web: Web) -> None:
    for source in (web.base, web.urls(), web.world.store.uri):
        fs = filesystem(web.world, web.sealed, source)
        assert fs.cat("spaced name #1.bin") == b"odd name"
        fs.close()


def test_fsspec_shows_only_what_the_envelope_discloses(world: World) -> None:
    fs = filesystem(world, world.seal(), components=["tokenizer"])
    assert fs.find("") == ["tokenizer/vocab.txt"]
    with pytest.raises(PermissionError):
        fs.open("many.bin")
    with pytest.raises(FileNotFoundError):
        fs.open("nothing.bin")
    with pytest.raises(FileNotFoundError):
        fs.ls("nowhere")


def test_fsspec_is_read_only_keeps_no_keys_and_shares_no_instances(world: World) -> None:
    sealed = world.seal()
    fs = filesystem(world, sealed)
    with pytest.raises(io.UnsupportedOperation):
        fs.open("new.bin", "wb")
    assert filesystem(world, sealed) is not fs
    assert fs.storage_options == {}
    with pytest.raises((TypeError, ArtifactError)):
        pickle.dumps(fs)
