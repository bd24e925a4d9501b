"""The reference of the command line, `docs/cli.md`, made from the commands: `python -m orchestrator.cli.reference FILE`.

A test fails when the file is stale.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from orchestrator.cli.exit_codes import MEANING
from orchestrator.cli.main import app

_HEAD = """\
# `sluice`, the command

One command for everybody: who plans a release, who signs, who runs a pipeline, who audits, and a partner who fetches its
copy. The plain install (`pip install sluice-release`) holds all of it but the service itself; with
`sluice-release[service]` come the [operators' commands](#operators-commands).

This page is made from the commands themselves (`python -m orchestrator.cli.reference docs/cli.md`).

## Who asks, and where

| variable | in `~/.config/sluice/config.toml` | what |
|---|---|---|
| `SLUICE_URL` | `url` | the API's address; `http://127.0.0.1:8420` when nothing says otherwise |
| `SLUICE_TOKEN`, `SLUICE_TOKEN_FILE` | `token_file` | the API token; it is never printed, and travels over https alone (or to this machine) |
| `SLUICE_IDENTITY_FILE` | `identity_file` | your own private key: Ed25519 to sign, or the partner's key to open |

Files with secrets must be readable by their owner alone (`chmod 600`). Custody's and the log's public keys are pinned once,
by putting custody's public file (`custody-public.json`, or `custody.pub` and `log.pub` with one key a line) into
`~/.config/sluice`, or by `--custody-key` and `--log-key`; they are never taken from the service.

## For pipelines

- `--json` is everywhere: one JSON document on standard output (`release watch` prints one line of JSON per event). Notes and
  progress go to the error stream. A failure prints `{"error": {title, detail, reasons, exit_code, …}}` on the error stream.
- Every command that changes something carries an idempotency key; a call without an answer is sent again by itself. With
  `--idempotency-key` the same command run twice is one request; `release create` is so without it.
- `--yes` answers what would be asked. Without a terminal and without it, nothing irreversible is done.
- `sluice --install-completion` sets up the completion of your shell.

## Exit codes

| code | meaning |
|---|---|
"""

_WALK = """
## From a plan to a partner's copy

    sluice plan new plan.yaml --template five-stages      # then put in your people, keys and recipients
    sluice plan check plan.yaml                           # every broken rule, with path and line
    sluice release create gt-mini 1.0 --plan plan.yaml
    sluice artifact seal ./model --to custody-public.json --store s3://models/sealed -c weights=model.safetensors --register
    sluice artifact add gt-mini-1.0 art-…
    sluice evidence new hosted > risks.yaml               # fill in, then
    sluice evidence add gt-mini-1.0 risks.yaml --kind risk_assessment
    sluice gate show gt-mini-1.0                          # what is unmet, who can meet it, when a clock will
    sluice sign gt-mini-1.0 --role safety --approve       # shows what is signed, signs on this machine
    sluice release watch gt-mini-1.0
    sluice fetch gt-mini-1.0 --to ./model                 # the partner

"""


_OPERATORS = """
## Operators' commands

They come with `sluice-release[service]`, run where the service's settings are ([settings.md](settings.md): `SLUICE_…`), and speak to databases,
Temporal and the key service themselves, not to the API. `--dev` allows what is insecure; `--data-dir` is `SLUICE_DATA_DIR`. Exit codes: 0 done,
or in order; 1 not in order, or it could not be done, in words on the error stream; 2 a wrong command line or settings.
"""


def reference() -> str:
    """The whole page; the service must be installed."""
    parts = [_HEAD]
    parts += [f"| {int(code)} | {words} |\n" for code, words in MEANING.items()]
    parts.append(_WALK)
    for title, service in (("## Commands\n", False), (_OPERATORS, True)):
        parts.append(title)
        for name, shown in _commands(get_command(app), "sluice", service=service):
            parts.append(f"\n### `{name}`\n\n{shown}\n")
    return "".join(parts)


def _commands(group: Any, name: str, *, service: bool) -> Iterator[tuple[str, str]]:
    for sub_name, sub in sorted(getattr(group, "commands", {}).items()):
        if sub.hidden:
            continue
        full = f"{name} {sub_name}"
        if getattr(sub, "commands", None):
            yield from _commands(sub, full, service=service)
        elif _of_service(sub) == service:
            yield full, _shown(sub, full)


def _of_service(command: Any) -> bool:
    module = (
        getattr(inspect.unwrap(command.callback), "__module__", "") if command.callback else "orchestrator."
    )
    return not module.startswith(("orchestrator.", "typer."))


def _shown(command: Any, name: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [
        p
        for p in command.params
        if p.param_type_name == "option" and p.name not in {"as_json", "json", "help"}
    ]
    usage = [name, *(f"{_name(a)}" if a.required else f"[{_name(a)}]" for a in arguments)]
    lines = [
        inspect.cleandoc(command.help or ""),
        "",
        f"    {' '.join(usage)}{' [options]' if options else ''}",
        "",
    ]
    lines += [f"- `{_name(a)}`: {getattr(a, 'help', '') or ''}{_choices(a)}" for a in arguments]
    lines += [f"- `{', '.join(o.opts)}`: {o.help or ''}{_default(o)}" for o in options]
    return "\n".join(lines).rstrip()


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name).strip("[]{}").upper()


def _choices(argument: Any) -> str:
    """The words that an argument takes, where it takes no other."""
    kind = getattr(argument, "bare_type", None)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return ""
    return ", ".join(f"`{choice.value}`" for choice in kind)


def _default(option: Any) -> str:
    if option.required:
        return " *(needed)*"
    value = option.default
    return (
        f" (`{value}`)"
        if isinstance(value, str | int) and not isinstance(value, bool) and value not in {"", 0}
        else ""
    )


def main() -> None:
    """Write the page."""
    typer.echo(sys.argv[1])
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
