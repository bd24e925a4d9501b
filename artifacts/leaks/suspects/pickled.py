"""PyTorch's `data.pkl` as data: its opcodes are walked, and nothing is ever imported or called.

`pickletools` cuts the stream into opcodes; a small stack machine here follows those that build containers. A global is a
pair of names, a call is a record of what would have been called with what. Tensors are the calls of PyTorch's own rebuild
functions whose arguments have the right form; everything else stays a record that nobody acts on.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from artifacts.leaks.errors import HostileError, UnsupportedError

MAX_OPCODES = 3_000_000
MAX_PICKLE = 32 << 20
MAX_NODES = 3_000_000
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would import."""

    module: str
    name: str


@dataclass(slots=True)
class Call:
    """A call that the pickle would make, and the state that it would set."""

    function: Any
    arguments: Any
    state: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A persistent id of PyTorch: which member of the archive holds a tensor's numbers."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as the checkpoint describes it; nothing checked yet but the types."""

    name: str
    storage: Storage
    dtype: str | None
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()
_REBUILD = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"}


def walk(data: bytes) -> Any:
    """The object that a pickle describes, made of plain containers and the records above.

    Raises:
        HostileError: if the stream is malformed or too long.
        UnsupportedError: for opcodes that PyTorch does not write.
    """
    if len(data) > MAX_PICKLE:
        raise HostileError(f"pickle: {len(data)} bytes; at most {MAX_PICKLE} are walked")
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if number > MAX_OPCODES:
                raise HostileError(f"pickle: more than {MAX_OPCODES} opcodes")
            if machine.step(opcode.name, argument):
                return machine.stack[-1]
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise HostileError(f"pickle: malformed: {type(error).__name__}") from error
    raise HostileError("pickle: it does not end")


class _Machine:
    """The stack and memo of a pickle, for the opcodes of protocols 2 to 5 that build data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def step(self, name: str, argument: Any) -> bool:
        """Do one opcode; True at the end."""
        stack = self.stack
        if name == "STOP":
            return True
        if name in ("PROTO", "FRAME"):
            return False
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self._build(name, argument)
        return False

    def _build(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("TUPLE", "LIST", "FROZENSET"):
            items = self._since_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name == "DICT":
            stack.append(_Pairs())
            items = self._since_mark_below()
            stack[-1].items.extend(zip(items[::2], items[1::2], strict=True))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items = stack[-count:]
            del stack[-count:]
            stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            _extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = stack[-2:] if name == "SETITEM" else self._since_mark()
            if name == "SETITEM":
                del stack[-2:]
            _set(stack[-1], list(zip(items[::2], items[1::2], strict=True)))
        elif name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            stack.append(Global(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Global(str(module), str(attribute)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(Call(function, arguments))
        elif name == "NEWOBJ_EX":
            keywords, arguments, function = stack.pop(), stack.pop(), stack.pop()
            stack.append(Call(function, (arguments, keywords)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Call):
                stack[-1].state.append(state)
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        else:
            raise UnsupportedError(f"pickle: opcode {name} is not followed")

    def _since_mark_below(self) -> list[Any]:
        top = self.stack.pop()
        items = self._since_mark()
        self.stack.append(top)
        return items


class _Pairs:
    """A dictionary as a list of pairs: a stranger's keys need not be hashable, and are not hashed."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[tuple[Any, Any]] = []


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": _Pairs, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_LITERALS = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Call):
        target.state.append(items)
    else:
        raise TypeError("append to what is no list")


def _set(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    if isinstance(target, _Pairs):
        target.items.extend(pairs)
    elif isinstance(target, Call):
        held = _Pairs()
        held.items = pairs
        target.state.append(held)
    else:
        raise TypeError("items of what is no dictionary")


def _storage(saved: Any) -> Storage | None:
    """PyTorch's persistent id: ("storage", type, key, location, count)."""
    match saved:
        case ("storage", Global(name=kind), str(key), _, int(count)) if not isinstance(count, bool):
            return Storage(kind, key, count)
        case _:
            return None


def tensors(root: Any) -> Iterator[PickledTensor]:
    """Every tensor in what `walk` returned, named by the path of keys that leads to it; shared objects once.

    Raises:
        HostileError: if there is more to walk than any checkpoint has.
    """
    seen: set[int] = set()
    pending: list[tuple[str, Any, int]] = [("", root, 0)]
    visited = 0
    while pending:
        name, node, depth = pending.pop()
        visited += 1
        if visited > MAX_NODES:
            raise HostileError(f"pickle: more than {MAX_NODES} objects")
        if not isinstance(node, list | tuple | _Pairs | Call) or depth > MAX_DEPTH:
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Call):
            found = _tensor(name, node)
            if found is not None:
                yield found
                continue
        pending.extend((n, child, depth + 1) for n, child in reversed(list(_children(name, node))))


def _children(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, _Pairs):
        for key, value in node.items:
            part = str(key) if isinstance(key, str | int) else "?"
            yield (f"{name}.{part}" if name else part)[:512], value
    elif isinstance(node, Call):
        yield name, node.arguments
        for state in node.state:
            yield name, state
    else:
        for child in node:
            yield name, child


def _tensor(name: str, call: Call) -> PickledTensor | None:
    """A tensor, if this call is one of PyTorch's rebuild functions with arguments of the right form."""
    match call:
        case Call(
            function=Global(module="torch._tensor", name="_rebuild_from_type_v2"),
            arguments=(function, _, inner, *_),
        ):
            return _tensor(name, Call(function, inner))
        case Call(
            function=Global(module="torch._utils", name="_rebuild_parameter"), arguments=(Call() as inner, *_)
        ):
            return _tensor(name, inner)
        case Call(
            function=Global(module="torch._utils", name=function),
            arguments=(Storage() as storage, int(offset), tuple(shape), tuple(strides), *rest),
        ) if function in _REBUILD and all(type(n) is int for n in (*shape, *strides)):
            dtype = rest[2].name if len(rest) > 2 and isinstance(rest[2], Global) else None
            return PickledTensor(
                name, storage, dtype if function.endswith("v3") else None, offset, shape, strides
            )
        case _:
            return None
