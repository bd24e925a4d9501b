"""Shape errors of a plan in plain words: every one, with its path, and with the name that was surely meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import ValidationError

from orchestrator.domain.errors import Reason
from orchestrator.domain.plan import Plan, json_schema
from orchestrator.plans.tree import MAX_PROBLEMS, join

_NAME_WORDS = "a name is lower-case letters, digits, dot, dash and underscore, at most 63"
_TYPES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be fields with values",
    "model_type": "must be fields with values",
    "model_attributes_type": "must be fields with values",
}
_UNIONS = {
    "parameters": "a parameter is text, a whole number, true or false, or a list of text",
    "audience": "an audience is `internal`, `public`, or `partners:` with a list of partner groups",
}


@dataclass(frozen=True, slots=True)
class ShapeError:
    """One thing that has the wrong shape.

    Attributes:
        reason: what is wrong, with its path.
        meant: the path of the field that was surely meant by an unknown one, or None.
        place: where it is, as keys and indices.
        unknown: whether it is a field that plans do not have.
    """

    reason: Reason
    meant: str | None
    place: tuple[str | int, ...]
    unknown: bool


def parse(value: Any) -> tuple[Plan | None, list[ShapeError]]:
    """A plan of these plain values, or everything that keeps them from being one."""
    try:
        # Strictly, and as JSON: no text becomes a number, no number a truth, while words become enums and instants.
        return Plan.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        # Some more than are shown: several of pydantic's may become one of ours.
        found = error.errors(include_url=False, include_input=False)[: 4 * MAX_PROBLEMS]
        return None, list(_shape_errors(found, value))


def _shape_errors(errors: Sequence[Mapping[str, Any]], value: Any) -> Iterator[ShapeError]:
    unions: set[str] = set()
    for error in errors:
        place = list(error["loc"])
        union = _union(place)
        if union is not None:
            end, field = union
            branch = place[end] if len(place) > end else ""
            here = _at(value, place[:end])
            if field == "audience" and isinstance(here, dict):
                if branch != "PartnerAudience":
                    continue
                del place[end]
            else:
                path = _path(place[:end])
                if path not in unions:
                    unions.add(path)
                    yield _wrong(path, _UNIONS[field], place[:end])
                continue
        yield _one(error, place, value)


def _union(place: list[str | int]) -> tuple[int, str] | None:
    """Where a place enters a union, whose branches pydantic writes into it: the length of its own part, its field."""
    if len(place) >= 4 and place[0] == "steps" and place[2] == "audience":
        return 3, "audience"
    if len(place) >= 7 and place[0] == "steps" and place[2] == "controls" and place[4] == "parameters":
        return 6, "parameters"
    return None


def _one(error: Mapping[str, Any], place: list[str | int], value: Any) -> ShapeError:
    kind: str = error["type"]
    if place and place[-1] == "[key]":
        path = _path(place[:-1])
        return _wrong(path, f"`{place[-2]}` can't be a name: {_NAME_WORDS}", place[:-1])
    path = _path(place)
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "missing":
        reason = Reason("missing-field", f"`{place[-1]}` is missing", path)
        return ShapeError(reason, None, tuple(place), unknown=False)
    given = _at(value, place)
    return _wrong(path, _words(kind, error, place, given), place)


def _wrong(path: str, words: str, place: Sequence[str | int]) -> ShapeError:
    return ShapeError(Reason("wrong-value", words, path or None), None, tuple(place), unknown=False)


def _words(kind: str, error: Mapping[str, Any], place: list[str | int], given: Any) -> str:
    context: Mapping[str, Any] = error.get("ctx") or {}
    if kind in _TYPES:
        if given is None:
            return f"{_TYPES[kind]}, but nothing stands here"
        return f"{_TYPES[kind]}, not {_kind_words(given)}"
    if kind in {"enum", "literal_error"}:
        return _choice(context, place, given)
    if kind == "string_pattern_mismatch":
        described = _described(place)
        return f"not of the right form: {described}" if described else f"must match {context.get('pattern')}"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in {"too_short", "too_long"}:
        least, most = context.get("min_length"), context.get("max_length")
        return f"needs at least {least} entry" if kind == "too_short" else f"takes at most {most} entries"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"is longer than {context.get('max_length')} characters"
    if kind == "greater_than_equal":
        return f"must be at least {context.get('ge')}"
    if kind == "less_than_equal":
        return f"must be at most {context.get('le')}"
    if kind.startswith(("datetime", "timezone")):
        return "must be an instant with its time zone, such as 2026-11-23T09:00:00Z"
    return str(error["msg"])


def _choice(context: Mapping[str, Any], place: list[str | int], given: Any) -> str:
    expected = str(context.get("expected", "")).replace(" or ", ", ").replace("'", "")
    choices = [word.strip() for word in expected.split(",") if word.strip()]
    shown = f"`{given}`" if isinstance(given, str) and len(given) <= 60 else _kind_words(given)
    words = f"{shown} is not one of {', '.join(choices)}"
    close = get_close_matches(str(given).lower().replace("-", "_"), choices, 1, 0.6)
    return f"{words}; did you mean `{close[0]}`?" if close else words


def _kind_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "fields with values"


def _unknown(place: list[str | int]) -> ShapeError:
    name = str(place[-1])
    known = _fields(place[:-1])
    path = _path(place)
    meant: str | None = None
    words = f"there is no field `{name}` here"
    close = get_close_matches(name.lower().replace("-", "_"), known, 1, 0.6)
    elsewhere = _homes().get(name, [])
    if close:
        meant = _path([*place[:-1], close[0]])
        words += f"; did you mean `{close[0]}`?"
    elif elsewhere:
        words += f"; it belongs under {' or '.join(elsewhere)}"
        below = [home for home in elsewhere if home in known]
        meant = _path([*place[:-1], below[0], name]) if below else None
    elif known:
        words += f"; there are: {', '.join(known)}"
    return ShapeError(Reason("unknown-field", words, path), meant, tuple(place), unknown=True)


def _path(place: Sequence[str | int]) -> str:
    path = ""
    for part in place:
        path = join(path, part)
    return path


def _at(value: Any, place: Sequence[str | int]) -> Any:
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


@cache
def _schema() -> dict[str, Any]:
    return json_schema()


def _node(place: Sequence[str | int]) -> dict[str, Any]:
    """The schema of a place, as far as it can be followed."""
    node: dict[str, Any] = _resolve(_schema())
    for part in place:
        if isinstance(part, int):
            node = node.get("items", {})
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            patterns = list(node.get("patternProperties", {}).values())
            extra = node.get("additionalProperties")
            node = patterns[0] if patterns else (extra if isinstance(extra, dict) else {})
        node = _resolve(node)
    return node


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = _schema()["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return _resolve({**target, **{k: v for k, v in node.items() if k != "$ref"}})
    for choice in node.get("anyOf", []):
        found = _resolve(choice)
        if found.get("type") in {"object", "array"} or "pattern" in found or "description" in found:
            return {**found, **{k: v for k, v in node.items() if k == "description"}}
    return node


def _fields(place: Sequence[str | int]) -> list[str]:
    return list(_node(place).get("properties", {}))


def _described(place: Sequence[str | int]) -> str | None:
    node = _node(place)
    words = node.get("description")
    return str(words) if words else None


@cache
def _homes() -> dict[str, list[str]]:
    """For every field, the names of the fields under which it stands (`cooling_off` under `gate`)."""
    homes: dict[str, list[str]] = {}
    defs = _schema()["$defs"]
    for node in [_schema(), *defs.values()]:
        for parent, below in node.get("properties", {}).items():
            for target in _targets(below):
                for name in defs[target].get("properties", {}):
                    homes.setdefault(name, [])
                    if parent not in homes[name]:
                        homes[name].append(parent)
    for name in _schema().get("properties", {}):
        homes.setdefault(name, []).insert(0, "the top of the plan")
    return homes


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rsplit("/", 1)[1]
        for below in node.values():
            yield from _targets(below)
    elif isinstance(node, list):
        for below in node:
            yield from _targets(below)
