import io
import json
import logging

import pytest
import structlog

from infra.logs import REDACTED, bound, configure_logging, redact


@pytest.fixture
def lines():
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    configure_logging(level="info", style="json", process="api", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = before[0], before[1]
    root.setLevel(level)
    structlog.reset_defaults()


def test_every_line_carries_release_step_and_request(lines):
    with bound(release="r1", step="open", request="q1"):
        structlog.get_logger("a").info("entered", size=3)
        logging.getLogger("b").warning("old style %s", "x")
    structlog.get_logger("a").info("outside")
    first, second, third = lines()
    for line in (first, second):
        assert (line["release"], line["step"], line["request"]) == ("r1", "open", "q1")
        assert line["process"] == "api"
        assert line["timestamp"].endswith("Z")
    assert first["size"] == 3
    assert second["event"] == "old style x"
    assert second["level"] == "warning"
    assert "release" not in third


def test_a_workflows_line_says_its_release(lines):
    logging.getLogger("temporalio.workflow").info(
        "x", extra={"temporal_workflow": {"workflow_id": "release:r7"}}
    )
    assert lines()[0]["release"] == "r7"


SECRETS = [
    "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQ",
    "AGE-SECRET-KEY-PQ-1QQQQQQQQQQQQQQQQ",
    "slt_live_abcDEF0123456789",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "hvs.CAESIabcdefghijklmnopqrstuvwxyz",
    "AKIAABCDEFGHIJKLMNOP",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_by_its_shape_shows_nowhere(lines, secret):
    log = structlog.get_logger("a")
    event = f"in the event {secret}"
    log.info(event, nested={"deep": [f"x {secret}"]}, raw=secret.encode())
    try:
        int(secret)
    except ValueError:
        log.exception("failed")
    logging.getLogger("b").error("in arguments %s", secret)
    text = json.dumps(lines())
    assert secret.splitlines()[0].replace("-----BEGIN", "") not in text
    assert json.dumps(secret)[1:-1] not in text
    assert text.count(REDACTED) >= 5


@pytest.mark.parametrize(
    "key", ["token", "api_token", "password", "Authorization", "private_key", "root_key", "passphrase"]
)
def test_a_secret_by_its_key_shows_nowhere(lines, key):
    structlog.get_logger("a").info("x", **{key: "canary"}, nested={key: ["canary"]})
    assert "canary" not in json.dumps(lines())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Bearer abc.def", f"Bearer {REDACTED}"),
        ("https://u:p@host/x", f"https://{REDACTED}@host/x"),
        (
            "https://s3/x?X-Amz-Signature=0a1b&X-Amz-Date=1",
            f"https://s3/x?X-Amz-Signature={REDACTED}&X-Amz-Date=1",
        ),
    ],
)
def test_only_the_secret_part_is_blanked(text, clean):
    assert redact(text) == clean


@pytest.mark.parametrize("text", ["release r1 entered open", "public_key ssh-ed25519 AAAA", "sha256:0a1b2c"])
def test_ordinary_text_is_left_alone(text):
    assert redact(text) == text
    assert redact({"key_id": text, "token_count": 3}) == {"key_id": text, "token_count": 3}


def test_the_console_shows_no_local_variables():
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    configure_logging(style="console", stream=stream)
    try:
        local_canary = "canary" + "-value"
        try:
            [][len(local_canary)]
        except IndexError:
            structlog.get_logger("a").exception("failed")
        assert "canary-value" not in stream.getvalue()
        assert "IndexError" in stream.getvalue()
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
