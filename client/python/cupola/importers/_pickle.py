"""Reads a pickle as data: nothing is imported and no code of the file runs.

A pickle is a program for a small stack machine that may name any function of
any module and call it. This machine knows the instructions that build plain
values (numbers, text, bytes, tuples, lists, dictionaries) and a table of names
that its caller allows; another name or instruction ends the reading, named in
the error. Its work is bounded by `limit` bytes and by a Budget: no instruction
and no allowed function costs more than the bytes it reads or what it spends.

Instructions: the standard library's pickletools, protocols 2 to 5.
"""

from __future__ import annotations

import pickletools
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    FrozenSet,
    List,
    Mapping,
    NamedTuple,
    Optional,
)

from ._failure import ImportFailed, short

MAX_INSTRUCTIONS = 1_000_000
_MAX_LINE = 4096  # of the names' text form


_PIECE = 16 << 20  # of bytes that are read at once


class Budget:
    """The instructions that a file's pickles may run, all together."""

    def __init__(self) -> None:
        self._left = MAX_INSTRUCTIONS

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ImportFailed("the pickle has too many instructions")


class Allowed(NamedTuple):
    """What a pickle may name, each as "module.name"."""

    functions: Mapping[str, Callable[..., Any]]  # called with its arguments
    constants: Mapping[str, Any]
    classes: FrozenSet[str]  # their instances are read as Records


class Record:
    """An instance of an allowed class: its attributes, nothing else of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: Dict[str, Any] = {}


class _Name(NamedTuple):
    """An allowed function or class on the stack."""

    name: str


class _Bounded:
    """A file that gives at most `limit` bytes."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise ImportFailed("the pickle is larger than one of weights is")
        self._left -= size
        if size <= _PIECE:
            return self._file.read(size)
        pieces = bytearray()  # what is claimed may not be there
        while len(pieces) < size:
            piece = self._file.read(min(size - len(pieces), _PIECE))
            if not piece:
                break
            pieces += piece
        return bytes(pieces)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_LINE)
        self._left -= len(line)
        if self._left < 0:
            raise ImportFailed("the pickle is larger than one of weights is")
        return line


def read_pickle(
    file: BinaryIO,
    limit: int,
    allowed: Allowed,
    persistent: Optional[Callable[[Any], Any]] = None,
    budget: Optional[Budget] = None,
) -> Any:
    """The value of the pickle at the file's position, which ends behind it.

    `persistent` gives the value of a persistent id. Raises ImportFailed.
    """
    budget = budget or Budget()
    machine = _Machine(allowed, persistent, budget)
    try:
        bounded = _Bounded(file, limit)
        steps = pickletools.genops(bounded)  # type: ignore[arg-type]
        for instruction, argument, _ in steps:
            budget.spend(1)
            if instruction.name == "STOP":
                return machine.stack.pop()
            machine.run(instruction.name, argument)
    except ImportFailed:
        raise
    except Exception as error:  # whatever a damaged program leads to
        raise ImportFailed(f"the pickle is damaged: {error}") from None
    raise ImportFailed("the pickle has no end")


class _Machine:
    def __init__(
        self,
        allowed: Allowed,
        persistent: Optional[Callable[[Any], Any]],
        budget: Budget,
    ) -> None:
        self.stack: List[Any] = []
        self._marked: List[List[Any]] = []
        self._memo: Dict[int, Any] = {}
        self._allowed, self._persistent = allowed, persistent
        self._budget = budget

    def run(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _BUILDERS:
            _BUILDERS[name](self, argument)
        else:
            raise ImportFailed(f"the pickle uses {name}, which is not read")

    def _mark(self, _: Any) -> None:
        self._marked.append(self.stack)
        self.stack = []

    def _to_mark(self) -> List[Any]:
        items, self.stack = self.stack, self._marked.pop()
        return items

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise ValueError("a tuple of more than there is")
        at = len(self.stack) - size
        self.stack[at:] = [tuple(self.stack[at:])]

    def _extend(self, items: List[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("items are added to what is no list")
        self.stack[-1].extend(items)

    def _set(self, items: List[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("entries are set in what is no dictionary")
        for key, value in zip(items[::2], items[1::2]):
            # Others could not name anything, and hashing them may be costly.
            if not isinstance(key, (str, int)):
                raise ValueError("a dictionary's key is neither text nor int")
            # Ints that hash alike would take quadratic time.
            if isinstance(key, int) and key.bit_length() > 63:
                raise ValueError("a dictionary's key is a huge number")
            target[key] = value

    def _global(self, name: str) -> None:
        if name in self._allowed.constants:
            self._push(self._allowed.constants[name])
        elif name in self._allowed.functions or name in self._allowed.classes:
            self._push(_Name(name))
        else:
            raise ImportFailed(
                f"the pickle asks for {short(name)}, which a file of weights "
                "has no use for: refused"
            )

    def _stack_global(self, _: Any) -> None:
        module, name = self.stack[-2:]
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        del self.stack[-2:]
        self._global(f"{module}.{name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if (
            not isinstance(function, _Name)
            or function.name not in self._allowed.functions
            or not isinstance(arguments, tuple)
        ):
            raise ImportFailed("the pickle calls what is no allowed function")
        self._push(self._allowed.functions[function.name](*arguments))

    def _new(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if (
            not isinstance(kind, _Name)
            or kind.name not in self._allowed.classes
            or arguments != ()
        ):
            raise ImportFailed("the pickle makes what is of no allowed class")
        self._push(Record(kind.name))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            if not isinstance(state, dict):
                raise ValueError("an instance's attributes are no dictionary")
            self._budget.spend(len(state))  # the same may be set many times
            target.attributes.update({str(k): v for k, v in state.items()})
        elif not isinstance(target, dict):  # an OrderedDict's are of no use
            raise ImportFailed("the pickle changes what is no instance")

    def _put(self, index: Optional[int]) -> None:
        self._memo[len(self._memo) if index is None else index] = self.stack[-1]

    def _persist(self, _: Any) -> None:
        if self._persistent is None:
            raise ImportFailed("the pickle refers to data that is not there")
        self._push(self._persistent(self.stack.pop()))


_IGNORED = frozenset({"PROTO", "FRAME"})
# Their value is the instruction's argument.
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINSTRING", "SHORT_BINSTRING"),
    }
)
_Builder = Callable[[_Machine, Any], None]


def _appends(machine: _Machine, _: Any) -> None:
    items = machine._to_mark()
    machine._extend(items)


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine._to_mark()
    machine._set(items)


def _set_item(machine: _Machine, _: Any) -> None:
    items = [machine.stack.pop(-2), machine.stack.pop()]
    machine._set(items)


def _dotted(line: str) -> str:
    """pickletools gives a GLOBAL's two lines with a space between them."""
    return line.replace(" ", ".", 1)


_BUILDERS: Dict[str, _Builder] = {
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "TUPLE": lambda m, _: m._push(tuple(m._to_mark())),
    "MARK": _Machine._mark,
    "APPEND": lambda m, _: m._extend([m.stack.pop()]),
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": lambda m, line: m._global(_dotted(line)),
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._new,
    "BUILD": _Machine._build,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._put,
    "BINGET": lambda m, index: m._push(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._push(m._memo[index]),
    "BINPERSID": _Machine._persist,
}
