"""From the bytes of a YAML or JSON document to plain values, with the line of every place in it.

What is read is the part of YAML that means one thing to every reader: mappings with text as keys, lists, text, whole
numbers, `true`, `false` and `null`. What two YAML readers could read differently (`no`, `0o17`, `2026-11-23`, `1:30`) and
what makes a document more than it seems (anchors, tags, duplicate keys, invisible direction marks) is a problem with a
line, not a guess. Nothing here constructs objects, follows references or recurses by the depth of its input.

Paths are written as in `steps[2].gate.cooling_off`; the document itself is the empty path.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import yaml

from orchestrator.domain.errors import Malformed, Reason

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_NODES = 100_000
MAX_PROBLEMS = 200

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOMS = (
    (b"\xef\xbb\xbf", "starts with a byte order mark; save it as UTF-8 without one"),
    (b"\xff\xfe\x00\x00", "is UTF-32; save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "is UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16; save it as UTF-8"),
)
# Controls, line breaks that editors do not count, and marks that make text read in another order than it stands in.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?\s?(?:[Zz]|[-+]\d\d:?\d\d)")
_SECRET = re.compile(r"AGE-SECRET-KEY-|PRIVATE KEY-----|SLUICE-CUSTODY-KEY-|age-secret-key-", re.IGNORECASE)
_AMBIGUOUS = (
    (
        re.compile(r"(?:y|n|yes|no|on|off)", re.IGNORECASE),
        "is true or false to some YAML readers and text to others; write true or false, or put it in quotes",
    ),
    (
        re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:(?:[Tt]|\s+)[\d:.]+)?"),
        "is a date to some YAML readers; write an instant with its time zone, such as 2026-11-23T09:00:00Z, or put it in quotes",
    ),
    (re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE), "is not a finite number"),
    (
        re.compile(r"[-+]?(?:0[0-9_]+|0[oxb][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*|\+[0-9]+)"),
        "is a number in an old or rare spelling; write it in plain decimals, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        "is a base-60 number to some YAML readers; put it in quotes",
    ),
    (re.compile(r"="), "has a special meaning to some YAML readers; put it in quotes"),
)


@dataclass(slots=True)
class Tree:
    """A document as plain values.

    Attributes:
        value: mappings, lists, text, numbers, booleans and None.
        lines: the line (from 1) of every place, by path; a field's line is that of its name.
        problems: what is wrong with the document itself, each with its line.
    """

    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Reason] = field(default_factory=list)

    def line(self, path: str | None) -> int | None:
        """The line of a place, or of the nearest place around it that stands in the document."""
        path = path or ""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get("")

    def problem(self, code: str, message: str, path: str, line: int) -> None:
        """Note a problem; past `MAX_PROBLEMS` the document is given up.

        Raises:
            Malformed: there are too many of them to be worth listing.
        """
        self.problems.append(Reason(code, message, path or None, line))
        if len(self.problems) >= MAX_PROBLEMS:
            raise Malformed(f"more than {MAX_PROBLEMS} problems", self.problems)


def read_tree(data: bytes | str) -> Tree:
    """Read a YAML or JSON document; JSON is whatever begins with `{` or `[`.

    Raises:
        Malformed: it can't be read at all (encoding, size, syntax, depth). What can be read round is in `problems`.
    """
    text = decode(data)
    try:
        return _JsonReader(text).read() if _is_json(text) else _read_yaml(text)
    except yaml.MarkedYAMLError as error:
        _stop("syntax", _yaml_words(error, text), (error.problem_mark.line + 1) if error.problem_mark else 1)
    except yaml.YAMLError as error:
        _stop("syntax", f"not YAML: {error}", 1)
    except RecursionError:
        _stop("too-deep", f"nested deeper than {MAX_DEPTH} levels", 1)


def decode(data: bytes | str) -> str:
    """The document's text: UTF-8 of at most `MAX_BYTES`, without marks and controls that hide something.

    Raises:
        Malformed: another encoding, too large, or a forbidden character; with its line.
    """
    if isinstance(data, str):
        try:
            raw = data.encode()
        except UnicodeEncodeError as error:
            _stop("encoding", "contains half of a surrogate pair", data.count("\n", 0, error.start) + 1)
    else:
        raw = data
    if len(raw) > MAX_BYTES:
        _stop("too-large", f"{len(raw):,} bytes; at most {MAX_BYTES:,} are read", None)
    for bom, words in _BOMS:
        if raw.startswith(bom):
            _stop("encoding", words, 1)
    if b"\x00" in raw[:400] and raw[:400].count(b"\x00") * 3 >= len(raw[:400]):
        _stop("encoding", "looks like UTF-16 or UTF-32; save it as UTF-8", 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        _stop("encoding", f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8", line)
    found = _FORBIDDEN.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        _stop(
            "encoding", f"contains the control or direction mark U+{ord(found.group()):04X}; remove it", line
        )
    return text


def join(path: str, part: str | int) -> str:
    """The path of a field or an item below `path`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if path else part


def _is_json(text: str) -> bool:
    return text.lstrip(" \t\r\n")[:1] in ("{", "[")


def _stop(code: str, message: str, line: int | None) -> NoReturn:
    raise Malformed(message, [Reason(code, message, None, line)])


def _yaml_words(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and re.match(r"\s*\t", lines[mark.line]):
        return "a tab can't indent YAML; use spaces"
    words = " ".join(part for part in (error.context, error.problem) if part)
    return f"not YAML: {words or 'it breaks off here'}"


def _check_text(tree: Tree, value: str, path: str, line: int) -> None:
    if _SECRET.search(value):
        tree.problem(
            "secret",
            "this looks like a secret key; a plan is read by many: take it out and consider the key disclosed",
            path,
            line,
        )


@dataclass(slots=True)
class _Frame:
    path: str
    value: dict[str, Any] | list[Any]
    key: str | None = None
    twice: bool = False


def _read_yaml(text: str) -> Tree:
    tree = Tree(lines={"": 1})
    stack: list[_Frame] = []
    documents = nodes = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _stop("syntax", "a second document begins here (`---`); a plan is one document", line)
            if event.version or event.tags:
                tree.problem("tag", "YAML directives (`%`) are not read; remove them", "", line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            stack.pop()
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > MAX_NODES:
                _stop("too-large", f"more than {MAX_NODES:,} values", line)
            _take(tree, stack, event, line)
    if documents == 0:
        _stop("empty", "is empty; `sluice plan new` writes one to begin with", 1)
    return tree


def _take(tree: Tree, stack: list[_Frame], event: yaml.NodeEvent, line: int) -> None:
    frame = stack[-1] if stack else None
    if isinstance(frame and frame.value, dict) and frame is not None and frame.key is None:
        _take_key(tree, frame, event, line)
        return
    path = _place(tree, frame, line)
    value = _value(tree, event, path, line)
    if frame is None:
        tree.value = value
    elif isinstance(frame.value, list):
        frame.value.append(value)
    else:
        if not frame.twice:
            frame.value[frame.key or ""] = value
        frame.key = None
    if isinstance(value, dict | list):
        if len(stack) >= MAX_DEPTH:
            _stop("too-deep", f"nested deeper than {MAX_DEPTH} levels", line)
        stack.append(_Frame(path, value))


def _place(tree: Tree, frame: _Frame | None, line: int) -> str:
    if frame is None:
        tree.lines[""] = line
        return ""
    if isinstance(frame.value, list):
        path = join(frame.path, len(frame.value))
        tree.lines.setdefault(path, line)
        return path
    return join(frame.path, frame.key or "")


def _take_key(tree: Tree, frame: _Frame, event: yaml.NodeEvent, line: int) -> None:
    if not isinstance(event, yaml.ScalarEvent):
        _stop("syntax", "a field's name is plain text, not a list, a mapping or an alias", line)
    key = _scalar(tree, event, frame.path, line)
    if event.value == "<<" and not event.style:
        tree.problem("alias", "merge keys (`<<`) are not read; write the fields out", frame.path, line)
    elif not isinstance(key, str):
        shown = event.value or "(nothing)"
        tree.problem("syntax", f"the field name {shown} is not text; put it in quotes", frame.path, line)
    _name(tree, frame, key if isinstance(key, str) else event.value, line)


def _name(tree: Tree, frame: _Frame, key: str, line: int) -> None:
    path = join(frame.path, key)
    frame.key, frame.twice = key, key in frame.value
    if frame.twice:
        tree.problem(
            "duplicate-key", f"`{key}` stands twice here, first on line {tree.lines.get(path)}", path, line
        )
    tree.lines.setdefault(path, line)


def _value(tree: Tree, event: yaml.NodeEvent, path: str, line: int) -> Any:
    if isinstance(event, yaml.AliasEvent):
        tree.problem("alias", f"the alias *{event.anchor} is not followed; write it out", path, line)
        return None
    if event.anchor:
        tree.problem("alias", f"the anchor &{event.anchor} has no use in a plan; remove it", path, line)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(tree, event, path, line)
    tag: str | None = getattr(event, "tag", None)
    if tag:
        tree.problem("tag", f"the tag {tag} is not read; remove it", path, line)
    return {} if isinstance(event, yaml.MappingStartEvent) else []


def _scalar(tree: Tree, event: yaml.ScalarEvent, path: str, line: int) -> Any:
    text: str = event.value
    if event.tag:
        tree.problem("tag", f"the tag {event.tag} is not read; remove it", path, line)
        return text
    _check_text(tree, text, path, line)
    if event.style:
        return text
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        return _number(tree, text, path, line)
    if not _INSTANT.fullmatch(text):
        for pattern, words in _AMBIGUOUS:
            if pattern.fullmatch(text):
                tree.problem("ambiguous-value", f"`{text}` {words}", path, line)
                return text
    return text


def _number(tree: Tree, text: str, path: str, line: int) -> int | float | None:
    if _INT.fullmatch(text):
        if len(text) <= 16:
            return int(text)
        tree.problem("number", "a whole number of more than 15 digits is surely a mistake", path, line)
        return None
    value = float(text)
    if not math.isfinite(value):
        tree.problem("number", "not a finite number", path, line)
        return None
    return value


class _JsonReader:
    """Strict JSON (RFC 8259) with lines: `json.loads` keeps none, and takes NaN and the last of two equal names."""

    _SPACE = re.compile(r"[ \t\r\n]*")
    _STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
    _WORDS: ClassVar[dict[str, bool | None]] = {"true": True, "false": False, "null": None}

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tree = Tree()
        self._nodes = 0
        self._seen = (0, 1)

    def read(self) -> Tree:
        self._skip()
        self._tree.lines[""] = self._line()
        self._tree.value = self._value("", 0)
        self._skip()
        if self._at < len(self._text):
            self._fail("something follows after the end of the document")
        return self._tree

    def _line(self) -> int:
        at, line = self._seen
        line += self._text.count("\n", at, self._at)
        self._seen = (self._at, line)
        return line

    def _fail(self, words: str) -> NoReturn:
        _stop("syntax", f"not JSON: {words}", self._line())

    def _skip(self) -> None:
        found = self._SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _peek(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _string(self) -> str:
        found = self._STRING.match(self._text, self._at)
        if found is None:
            self._fail("a text is not closed on its line, or holds a control character")
        try:
            value = str(json.loads(found.group()))
            value.encode()
        except json.JSONDecodeError as error:
            self._fail(error.msg)
        except UnicodeEncodeError:
            self._fail("a text contains half of a surrogate pair")
        self._at = found.end()
        return value

    def _value(self, path: str, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            _stop("too-large", f"more than {MAX_NODES:,} values", self._line())
        if depth > MAX_DEPTH:
            _stop("too-deep", f"nested deeper than {MAX_DEPTH} levels", self._line())
        first = self._peek()
        if first == "{":
            return self._object(path, depth)
        if first == "[":
            return self._array(path, depth)
        line = self._line()
        if first == '"':
            text = self._string()
            _check_text(self._tree, text, path, line)
            return text
        for word, value in self._WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        if re.match(r"-?(NaN|Infinity)", self._text[self._at : self._at + 9]):
            self._fail("NaN and Infinity are not numbers here")
        found = _FLOAT.match(self._text, self._at)
        if not found:
            self._fail("a value is expected here" if first else "it breaks off here")
        self._at = found.end()
        return _number(self._tree, found.group(), path, line)

    def _object(self, path: str, depth: int) -> dict[str, Any]:
        frame = _Frame(path, {})
        result: dict[str, Any] = {}
        frame.value = result
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return result
        while True:
            if self._peek() != '"':
                self._fail("a field's name in double quotes is expected here")
            line = self._line()
            key = self._string()
            _name(self._tree, frame, key, line)
            twice = frame.twice
            if self._peek() != ":":
                self._fail("a `:` is expected here")
            self._at += 1
            value = self._value(join(path, key), depth + 1)
            if not twice:
                result[key] = value
            if self._end("}"):
                return result

    def _array(self, path: str, depth: int) -> list[Any]:
        result: list[Any] = []
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return result
        while True:
            self._skip()
            place = join(path, len(result))
            self._tree.lines[place] = self._line()
            result.append(self._value(place, depth + 1))
            if self._end("]"):
                return result

    def _end(self, closing: str) -> bool:
        following = self._peek()
        if following not in (",", closing) or not following:
            self._fail(f"a `,` or `{closing}` is expected here")
        self._at += 1
        return following == closing
