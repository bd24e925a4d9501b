"""The scans of CI find what is planted, know fixtures by their content, and say it when nothing could be looked up."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.scans import BASELINE, audit, audited, secrets_in, tracked

PLANTED = "it = '" + "AKIA" + "QYLPMN5HCANARY42" + "'\n"  # a key of AWS by its form


def test_a_planted_secret_is_found_wherever_it_stands_and_a_fixture_is_known_by_its_content(
    tmp_path: Path,
) -> None:
    (tmp_path / "deploy.py").write_text("x = 1\n" + PLANTED)
    [found] = secrets_in(["deploy.py"], tmp_path)
    assert found.startswith("deploy.py:2: ")
    assert "CANARY" not in found
    known = json.loads(BASELINE.read_text())
    digest = hashlib.sha1(PLANTED.split("'")[1].encode(), usedforsecurity=False).hexdigest()
    fixture = {
        "type": found.split(": ")[1],
        "hashed_secret": digest,
        "filename": "deploy.py",
        "line_number": 2,
    }
    baseline = tmp_path / "baseline"
    baseline.write_text(json.dumps(known | {"results": {"deploy.py": [fixture]}}))
    assert secrets_in(["deploy.py"], tmp_path, baseline) == []
    (tmp_path / "deploy.py").write_text("\n" * 40 + PLANTED)  # it moved: still the same fixture
    assert secrets_in(["deploy.py"], tmp_path, baseline) == []
    (tmp_path / "other.py").write_text(PLANTED)  # in another file it is none
    assert len(secrets_in(["other.py"], tmp_path, baseline)) == 1


def test_tracked_files_are_scanned_and_untouched_ones_not_again(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "requirements").mkdir()
    for name in ("a.py", "b.md", "untracked.py", "requirements/dev.lock"):
        (tmp_path / name).write_text("x")
    git("add", "a.py", "b.md", "requirements/dev.lock")
    assert tracked(root=tmp_path) == ["a.py", "b.md"]
    since = (tmp_path / "b.md").stat().st_mtime + 5
    os.utime(tmp_path / "a.py", (since + 1, since + 1))
    assert tracked(since, tmp_path) == ["a.py"]


@pytest.fixture
def weaknesses() -> Iterator[tuple[str, set[str]]]:
    """A service that answers as OSV does: its address, and the names that it knows a weakness of."""
    weak: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            package = asked["package"]["name"]
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}]
            known = {
                "id": "OSV-CANARY-1", "aliases": [], "summary": "made up", "published": "2026-01-01T00:00:00Z",
                "affected": [{"package": asked["package"], "ranges": ranges}],
            }  # fmt: skip
            body = json.dumps({"vulns": [known]} if package in weak else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", weak
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_audit_names_weaknesses_and_never_takes_silence_for_none(
    weaknesses: tuple[str, set[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, weak = weaknesses
    pins = tmp_path / "pins.lock"
    pins.write_text("".join(f"{name}==1.0 --hash=sha256:{'0' * 64}\n" for name in ("canary-a", "canary-b")))
    more = ["-s", "osv", "--cache-dir", str(tmp_path / "cache"), "--osv-url"]
    assert audit([str(pins)], [*more, url]) == 0
    assert "2 of 2 pinned packages looked up, 0 known weaknesses" in capsys.readouterr().out
    weak.add("canary-b")
    assert audit([str(pins)], [*more, url]) == 1
    assert "canary-b 1.0: OSV-CANARY-1, mended in 9.9" in capsys.readouterr().out
    assert audit([str(pins)], [*more, "http://127.0.0.1:9/"]) == 2
    said = capsys.readouterr().out
    assert "nothing was looked up" in said
    assert "Traceback" not in said


def test_a_package_that_the_index_tells_nothing_of_was_not_looked_up() -> None:
    good = {"name": "a", "version": "1", "vulns": []}
    silent = {"name": "b", "skip_reason": "b is not found"}
    assert audited([good])[1] == 0
    lines, code = audited([good, silent])
    assert code == 2
    assert "1 of 2 pinned packages looked up" in lines[0]
    assert audited([])[1] == 2
