"""A pickle reader that cannot execute anything.

Python's own ``pickle`` looks names up and calls them; this machine has neither operation. It walks the opcodes
with ``pickletools.genops`` and builds plain containers; a global stays a name (``GlobalName``), and calling or
instantiating a name gives an inert record of the call (``StandIn``), unless the name is a key of the literal table
``known``, whose values are functions of this package. No import, no attribute access, no method of a stored
object, no hash of a stored container ever happens on behalf of the file.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

from deploykit.checkpoint.refusal import damaged, shown

# A real checkpoint stays below one million; the bound keeps a hostile file from working for hours.
MAX_OPCODES = 20_000_000
# A call that copies its argument may be repeated on one long argument: the copies are bounded together.
MAX_COPIED = 5_000_000

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Opcodes whose decoded argument is the value itself.
_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
    ]
)
_DICTIONARIES = frozenset({"collections.OrderedDict", "collections.defaultdict"})
_SETS = frozenset({"builtins.set", "builtins.frozenset", "__builtin__.set", "__builtin__.frozenset"})
_RECONSTRUCTORS = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor"})


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A name that the pickle refers to; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class StandIn:
    """What the pickle would have made by calling ``origin``: arguments, state, entries; no behaviour."""

    origin: GlobalName
    args: object = ()
    state: object = None
    entries: dict[object, object] | None = None


Known = Mapping[str, Callable[[tuple[object, ...]], object]]


class PickleMachine:
    """Reads one pickle after another from ``stream``; memo and stack start afresh with each.

    ``known`` maps full names to functions of this package that build values from arguments; ``persistent`` turns
    a persistent id into a value. ``foreign`` holds, in order, the names for which stand-ins were made.
    """

    def __init__(self, stream: BytesIO, *, known: Known, persistent: Callable[[tuple[object, ...]], object]) -> None:
        self.foreign: dict[str, None] = {}
        self._stream = stream
        self._known = known
        self._persistent = persistent
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._copied = 0

    def load(self) -> object:
        """Return the value of the next pickle in the stream, which is left behind its end.

        Raises CheckpointError when the bytes are no complete pickle or use an opcode that no checkpoint needs.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            with warnings.catch_warnings():
                # A damaged text may hold an escape that Python only warns of.
                warnings.simplefilter("ignore", DeprecationWarning)
                for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
                    if count > MAX_OPCODES:
                        raise damaged(f"a pickle of more than {MAX_OPCODES} operations")
                    self._step(opcode.name, argument)
        except (ValueError, IndexError, OverflowError, struct.error) as error:
            raise damaged(f"a pickle that cannot be read ({shown(str(error))})") from error
        return self._pop()

    def _step(self, opcode: str, argument: object) -> None:
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise damaged(f"the pickle operation {opcode}, which no checkpoint uses")

    def _pop(self) -> object:
        if not self._stack:
            raise damaged("a pickle that takes more values than it gave")
        return self._stack.pop()

    def _top(self) -> object:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise damaged("a pickle that closes a group that it did not open")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _drop(self, _: object) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _put(self, index: object) -> None:
        self._memo[len(self._memo) if index is None else _integer(index)] = self._top()

    def _get(self, index: object) -> None:
        number = _integer(index)
        if number not in self._memo:
            raise damaged("a pickle that refers to a value before giving it")
        self._stack.append(self._memo[number])

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(values)))

    def _global(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(GlobalName(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise damaged("a global name that is no text")
        self._stack.append(GlobalName(module, name))

    def _extend(self, values: list[object]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, StandIn):
            raise damaged("items for something that takes none")

    def _set_entries(self, values: list[object]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            target.entries = {} if target.entries is None else target.entries
            _fill(target.entries, values)
        elif isinstance(target, dict):
            _fill(target, values)
        else:
            raise damaged("entries for something that takes none")

    def _set_entry(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._set_entries([key, value])

    def _dictionary(self, _: object) -> None:
        made: dict[object, object] = {}
        _fill(made, self._pop_to_mark())
        self._stack.append(made)

    def _append(self, _: object) -> None:
        self._extend([self._pop()])

    def _build(self, _: object) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, StandIn):
            target.state = state

    def _reduce(self, _: object) -> None:
        arguments, callee = self._pop(), self._pop()
        self._stack.append(self._made(callee, arguments))

    def _new_with_keywords(self, _: object) -> None:
        self._pop()
        self._reduce(_)

    def _instance(self, argument: object) -> None:
        arguments = tuple(self._pop_to_mark())
        self._global(argument)
        self._stack.append(self._made(self._pop(), arguments))

    def _object(self, _: object) -> None:
        callee, *arguments = self._pop_to_mark()
        self._stack.append(self._made(callee, tuple(arguments)))

    def _persistent_id(self, _: object) -> None:
        identifier = self._pop()
        if not isinstance(identifier, tuple):
            raise damaged("a persistent id that is no tuple")
        self._stack.append(self._persistent(identifier))

    def _made(self, callee: object, arguments: object) -> object:
        """Return what stands for ``callee(*arguments)``."""
        if not isinstance(arguments, tuple):
            raise damaged("a call whose arguments are no tuple")
        if isinstance(callee, StandIn):
            return StandIn(callee.origin, arguments)
        if not isinstance(callee, GlobalName):
            raise damaged("a call of something that is no name")
        name = str(callee)
        if name in self._known:
            return self._known[name](arguments)
        if name in _DICTIONARIES:
            return self._ordered_dictionary(arguments)
        if name in _SETS and arguments and isinstance(arguments[0], list):
            return arguments[0]
        if name in _RECONSTRUCTORS and arguments and isinstance(arguments[0], GlobalName):
            callee = arguments[0]
        self.foreign[str(callee)] = None
        return StandIn(callee, arguments)

    def _ordered_dictionary(self, arguments: tuple[object, ...]) -> dict[object, object]:
        """Return a dictionary from the arguments of OrderedDict: none, or pairs as Python 2 wrote them."""
        made: dict[object, object] = {}
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self._copied += len(pairs)
        if self._copied > MAX_COPIED:
            raise damaged("the same long list copied again and again")
        for pair in pairs:
            if isinstance(pair, list | tuple) and len(pair) == 2:
                _fill(made, [*pair])
        return made


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise damaged("a memo index that is no number")
    return value


def _fill(target: dict[object, object], values: list[object]) -> None:
    """Set alternate keys and values; other keys than plain scalars (hashing a deep tuple can crash) are left out."""
    if len(values) % 2:
        raise damaged("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if key is None or isinstance(key, str | int | float | bytes):
            target[key] = value


_STEPS: dict[str, Callable[[PickleMachine, object], None]] = {
    "MARK": lambda machine, _: machine._marks.append(len(machine._stack)),
    "POP": PickleMachine._drop,
    "POP_MARK": lambda machine, _: machine._pop_to_mark().clear(),
    "DUP": lambda machine, _: machine._stack.append(machine._top()),
    "PUT": PickleMachine._put,
    "BINPUT": PickleMachine._put,
    "LONG_BINPUT": PickleMachine._put,
    "MEMOIZE": PickleMachine._put,
    "GET": PickleMachine._get,
    "BINGET": PickleMachine._get,
    "LONG_BINGET": PickleMachine._get,
    "EMPTY_TUPLE": lambda machine, _: machine._tuple(0),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._pop_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "LIST": lambda machine, _: machine._stack.append(machine._pop_to_mark()),
    "APPEND": PickleMachine._append,
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "EMPTY_SET": lambda machine, _: machine._stack.append([]),
    "ADDITEMS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "FROZENSET": lambda machine, _: machine._stack.append(machine._pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine._stack.append({}),
    "DICT": PickleMachine._dictionary,
    "SETITEM": PickleMachine._set_entry,
    "SETITEMS": lambda machine, _: machine._set_entries(machine._pop_to_mark()),
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "INST": PickleMachine._instance,
    "OBJ": PickleMachine._object,
    "NEWOBJ": PickleMachine._reduce,
    "NEWOBJ_EX": PickleMachine._new_with_keywords,
    "REDUCE": PickleMachine._reduce,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent_id,
}
