"""Writes `docs/settings.md` from the settings themselves: `python -m infra.settings_docs`."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from infra.settings import CLIENT_VARIABLES, CUSTODY_ONLY, MONITOR_ONLY, Settings
from infra.settings_parts.place import PREFIX

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

_HEAD = """\
# Settings

<!-- Made by `python -m infra.settings_docs`; edit `infra/settings.py` instead. -->

Each setting is an environment variable. A variable that starts with `SLUICE_` and is not listed here stops the start-up with the
nearest known name. Secrets are never settings: a setting that ends in `_FILE` names the file that holds one. Settings marked
*custody only* lead to the key-encryption key; every other process refuses to start when it is handed one. An empty variable of a
setting without a default is not set.

Outside dev mode (`--dev` or `SLUICE_DEV=true`) a process does not start when it would be insecure, and says why: no codec keys, a
local keyring without a passphrase, an API on more than loopback without TLS proxies and an `https://` address, Temporal,
PostgreSQL, OpenBao or a store on another host without TLS.

| variable | what it is | values | default |
|---|---|---|---|
"""

_CLIENT = """
## Variables of the client

Read by `sluice …` as a client of the API and by the partner's tools; the service ignores them.

| variable | what it is |
|---|---|
"""


def render() -> str:
    """The whole page."""
    rows = "".join(_row(name, field) for name, field in Settings.model_fields.items())
    clients = "".join(f"| `{name}` | {text} |\n" for name, text in CLIENT_VARIABLES.items())
    return _HEAD + rows + _CLIENT + clients


def _row(name: str, field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    if name in CUSTODY_ONLY:
        text = f"*Custody only.* {text}"
    if name in MONITOR_ONLY:
        text = f"*Leak worker only.* {text}"
    return f"| `{PREFIX}{name.upper()}` | {text} | {_values(field)} | {_default(field.default)} |\n"


def _values(field: FieldInfo) -> str:
    return _type(field.annotation) + "".join(
        f", {symbol} {getattr(limit, attribute)}"
        for limit in field.metadata
        for attribute, symbol in (("ge", "≥"), ("le", "≤"))
        if hasattr(limit, attribute)
    )


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in {Union, UnionType}:
        return ", ".join(_type(part) for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is tuple:
        return "JSON list"
    if annotation is bool:
        return "`true`, `false`"
    return {int: "whole number", float: "number", str: "text", Path: "path"}.get(annotation) or ", ".join(
        f"`{value}`" for value in annotation
    )


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value in {"", ()}:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
