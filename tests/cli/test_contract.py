"""What every command keeps: `--json`, documented exit codes, help, completion, and a plain install without the service."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orchestrator.cli.exit_codes import MEANING, ExitCode, of_status
from orchestrator.cli.main import app
from orchestrator.cli.reference import reference

ROOT = Path(__file__).resolve().parents[2]


def commands() -> dict[str, typer.models.CommandInfo]:
    found = {}

    def walk(group: typer.Typer, prefix: str) -> None:
        for info in group.registered_commands:
            found[f"{prefix}{info.name or info.callback.__name__}"] = info
        for sub in group.registered_groups:
            walk(sub.typer_instance, f"{prefix}{sub.name} ")

    walk(app, "")
    return found


def own_commands() -> list[str]:
    return [name for name, info in commands().items() if info.callback.__module__.startswith("orchestrator.")]


def test_the_commands_that_are_promised_are_there():
    promised = """
        plan check, plan show, plan new, release create, release list, release show, release watch, release hold,
        release resume, release abort, release rollback, gate show, gate preview, gate retry, sign, evidence add,
        incident report, incident triage, incident close, partner add, partner list, partner keygen, artifact seal,
        artifact add, artifact list, artifact verify, fetch, open, up, down, status, audit export, audit verify,
        key new, key show, key register, key accept, grant list, grant revoke, evidence new
    """
    missing = {" ".join(name.split()) for name in promised.split(",")} - set(commands())
    assert missing == set()


@pytest.mark.parametrize("name", own_commands())
def test_every_command_takes_json_and_says_what_it_does(sluice, name):
    ran = sluice(*name.split(), "--help")
    assert ran.code == 0
    assert "--json" in ran.out
    assert commands()[name].callback.__doc__


def test_the_reference_is_that_of_the_commands():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == reference(), "stale: run python -m orchestrator.cli.reference docs/cli.md"
    assert set(MEANING) == set(ExitCode)
    for code, words in MEANING.items():
        assert f"| {int(code)} | {words} |" in text
    shown = {name for name, info in commands().items() if not info.hidden}
    assert [name for name in sorted(shown) if f"### `sluice {name}`" not in text] == []
    assert {
        "migrate",
        "doctor",
        "rotate-kek",
        "backup create",
        "backup restart",
        "prepare secrets",
        "builds move",
    } <= shown
    assert "supervise" not in shown, "the stack's own"


def test_exit_codes_are_printed(sluice):
    ran = sluice("--exit-codes")
    assert ran.code == 0
    assert len(ran.out.strip().splitlines()) == len(ExitCode)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, 3),
        (403, 3),
        (404, 4),
        (409, 5),
        (412, 5),
        (428, 5),
        (413, 6),
        (422, 6),
        (429, 7),
        (503, 7),
        (500, 10),
    ],
)
def test_http_statuses_have_their_exit_codes(status, code):
    assert of_status(status) == code


def test_a_wrong_command_line_is_told_with_code_2(sluice):
    assert sluice("plan", "check").code == 2
    assert sluice("nonsense").code == 2
    assert sluice("plan", "check", "x", "--colour").code == 2


def test_the_version_is_printed(sluice):
    assert sluice("--version").out.startswith("sluice ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_shells(shell):
    environment = {"_SLUICE_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [str(Path(sys.executable).parent / "sluice")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "_SLUICE_COMPLETE" in ran.stdout or "sluice" in ran.stdout


_PLAIN = """
import sys
class Absent:
    names = {"temporalio", "fastapi", "sqlmodel", "sqlalchemy", "uvicorn", "structlog", "webauthn", "alembic", "starlette"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from typer.testing import CliRunner
from orchestrator.cli.main import app
from orchestrator.cli.reference import reference
for arguments in (["--help"], ["plan", "new", "-t", "gpt-j"], ["partner", "keygen", sys.argv[1]], ["key", "new", sys.argv[2], "--no-passphrase"]):
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, (arguments, ran.output)
import artifacts.fetching, artifacts.sealing, orchestrator.trust.decisions, orchestrator.cli.client, orchestrator.client
print("plain")
"""


def test_the_plain_install_needs_nothing_of_the_service(home):
    ran = subprocess.run(
        [sys.executable, "-c", _PLAIN, str(home / "partner.key"), str(home / "id")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.strip() == "plain", ran.stderr
