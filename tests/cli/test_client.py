"""The client: retries that do no harm, refusals in words, streams over cut connections, secrets that stay."""

import json

import httpx
import pytest

from orchestrator.cli.client import Client, parse_events, path_of
from orchestrator.cli.config import Config, load_config
from orchestrator.cli.failures import LocalFailure, Refused, Unreachable

CONFIG = Config("http://127.0.0.1:9", "slt_secret")


def client(handler, pauses=None):
    return Client(
        CONFIG, transport=httpx.MockTransport(handler), sleep=(pauses if pauses is not None else []).append
    )


def problem(status, **more):
    body = {"type": "x", "title": "T", "status": status, "detail": "D", "code": "c", "reasons": [], **more}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def test_a_command_that_got_no_answer_is_sent_again_under_the_same_key():
    seen = []

    def handler(request):
        seen.append((request.headers["Idempotency-Key"], request.content))
        if len(seen) < 3:
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(200, json={"ok": True})

    with client(handler) as c:
        assert c.post("releases", "r", "hold", body={"reason": "x"}) == {"ok": True}
    assert len(set(seen)) == 1
    assert len(seen) == 3


def test_a_busy_service_is_asked_again_when_it_says():
    answers = iter(
        [httpx.Response(503, headers={"Retry-After": "7"}), problem(429), httpx.Response(200, json={})]
    )
    pauses = []
    with client(lambda _: next(answers), pauses) as c:
        c.get("releases")
    assert pauses[0] == 7
    assert len(pauses) == 2


def test_it_is_given_up_after_a_few_times():
    with client(lambda _: problem(503)) as c, pytest.raises(Refused) as caught:
        c.get("releases")
    assert caught.value.status == 503


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 428, 500])
def test_a_refusal_is_not_sent_again(status):
    calls = []

    def handler(_):
        calls.append(1)
        return problem(status, reasons=[{"code": "r", "message": "why", "path": "p", "line": 3}])

    with client(handler) as c, pytest.raises(Refused) as caught:
        c.get("releases")
    assert len(calls) == 1
    assert caught.value.reasons[0].message == "why"
    assert caught.value.reasons[0].line == 3


def test_redirects_are_not_followed():
    def handler(request):
        assert request.url.host == "127.0.0.1"
        return httpx.Response(302, headers={"Location": "http://evil.example/"})

    with client(handler) as c, pytest.raises(Refused, match="redirects"):
        c.get("releases")


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b"\xff\xfe", b"null"])
def test_something_that_is_not_the_api(content):
    with client(lambda _: httpx.Response(200, content=content)) as c, pytest.raises(Refused):
        c.get("releases")


def test_nobody_there():
    def handler(request):
        raise httpx.ConnectError("refused", request=request)

    with client(handler) as c, pytest.raises(Unreachable) as caught:
        c.get("releases")
    assert "slt_secret" not in str(caught.value)


def test_lists_are_read_page_after_page():
    def handler(request):
        cursor = request.url.params.get("cursor")
        first = {"items": [{"id": 1}, {"id": 2}], "next_cursor": "n"}
        return httpx.Response(
            200, json=first if cursor is None else {"items": [{"id": 3}], "next_cursor": None}
        )

    with client(handler) as c:
        assert [i["id"] for i in c.items("releases")] == [1, 2, 3]
        assert [i["id"] for i in c.items("releases", limit=2)] == [1, 2]


def event(number):
    return f"id: {number}\r\nevent: hold_placed\r\ndata: {json.dumps({'seq': number})}\r\n\r\n".encode()


class Cut(httpx.SyncByteStream):
    def __init__(self, data, *, cut):
        self.data, self.cut = data, cut

    def __iter__(self):
        yield self.data
        if self.cut:
            raise httpx.ReadError("cut")


def test_a_stream_goes_on_behind_the_last_event_after_a_cut():
    asked = []

    def handler(request):
        after = int(request.headers["Last-Event-ID"])
        asked.append(after)
        if after == 0:
            return httpx.Response(200, stream=Cut(b": ping\r\n\r\n" + event(1) + event(2), cut=True))
        return httpx.Response(200, stream=Cut(event(3), cut=False))

    with client(handler) as c:
        assert [e["seq"] for e in c.events("r")] == [1, 2, 3]
    assert asked == [0, 2]


def test_events_without_a_number_are_passed_over():
    lines = iter(["data: 1", "", ": ping", "id: x", "data: {}", "", "id: 4", 'data: {"a":', "data: 1}", ""])
    assert list(parse_events(lines)) == [(4, {"a": 1})]


@pytest.mark.parametrize("name", ["../me", "a/b", "a?b=c", "a#b", "..", "%2e%2e"])
def test_a_name_stays_in_its_place_in_the_path(name):
    path = path_of("releases", name, "hold")
    assert path.count("/") == 4
    assert "?" not in path
    assert "#" not in path


# --- configuration


def test_the_token_is_not_shown(home, monkeypatch):
    monkeypatch.setenv("SLUICE_TOKEN", "slt_secret")
    assert "slt_secret" not in repr(load_config())


@pytest.mark.parametrize(
    "url", ["http://example.org", "ftp://x", "localhost:8420", "https://u:p@x", "http://10.0.0.7:8420"]
)
def test_a_token_does_not_travel_in_clear_or_nowhere(home, monkeypatch, url):
    monkeypatch.setenv("SLUICE_TOKEN", "slt_secret")
    monkeypatch.setenv("SLUICE_URL", url)
    with pytest.raises(LocalFailure):
        load_config()


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ä"])
def test_what_is_no_token(home, monkeypatch, token):
    monkeypatch.setenv("SLUICE_TOKEN", token)
    with pytest.raises(LocalFailure):
        load_config()


def test_the_file_says_what_the_environment_does_not(home, monkeypatch):
    folder = home / "home" / "config" / "sluice"
    folder.mkdir(parents=True)
    (folder / "token").write_text("slt_fromfile\n")
    (folder / "token").chmod(0o600)
    (folder / "config.toml").write_text(
        f'url = "https://sluice.example"\ntoken_file = "{folder / "token"}"\n'
    )
    found = load_config()
    assert (found.url, found.token) == ("https://sluice.example", "slt_fromfile")
    monkeypatch.setenv("SLUICE_TOKEN", "slt_env")
    assert load_config().token == "slt_env"
    (folder / "token").chmod(0o644)
    monkeypatch.delenv("SLUICE_TOKEN")
    with pytest.raises(LocalFailure, match="chmod 600"):
        load_config()


@pytest.mark.parametrize("text", ["url = ", "colour = 'blue'", "\x00"])
def test_a_configuration_that_cannot_be_read(home, text):
    folder = home / "home" / "config" / "sluice"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(text)
    with pytest.raises(LocalFailure):
        load_config()
