"""Reads pickles of texts, numbers, lists, dicts and arrays of bytes or whole numbers, and runs nothing that they name.

Unpickling runs what a file names, and even with a list of allowed names a crafted state of `numpy.dtype` makes pointers out of
bytes. Here the operations of a pickle are carried out one by one on plain values; an array is made from its bytes at the end.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crl_tf.text import shortened

LARGEST = 1 << 30
"""Bytes of a file that is read; CIFAR-100's training images take 155 million."""

DTYPES = {"u1": np.uint8, "i4": np.int32, "i8": np.int64}

_MARK = object()


class _Named(NamedTuple):
    """A function or class that the file names."""

    name: str


_ARRAY, _RECONSTRUCT, _DTYPE, _ENCODE = map(_Named, ("array", "reconstruct", "dtype", "encode"))
_GLOBALS = {
    "numpy ndarray": _ARRAY,
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
}


class _Type:
    """A type of numbers, of which only the byte order can be set."""

    def __init__(self, code: str) -> None:
        self.code = code


class _Array:
    """An array that is not filled yet."""

    values: np.ndarray | None = None


def read_pickle(path: Path) -> Any:
    """The content of a pickle, with arrays as NumPy's.

    Raises:
        ValueError: it is no pickle, is too large, or holds or names anything else.
    """
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise ValueError(f"{path} must be a file of at most {LARGEST:,} bytes")
    content = path.read_bytes()
    machine = _Machine(spare=4 * len(content))
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            if opcode.name == "STOP":
                return _filled(machine.stack.pop())
            _carry_out(opcode.name, argument, machine)
    # What a damaged file does to a stack machine: too few values, of other types, other names.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError, StopIteration) as error:
        raise ValueError(
            f"{path} is no pickle of texts, numbers and arrays: {shortened(str(error) or repr(error), 200)}"
        ) from error
    raise ValueError(f"{path} is no whole pickle")


@dataclass
class _Machine:
    """The state of reading. spare: how many bytes may still be made of texts, which a file can name again and again."""

    spare: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def encoded(self, text: str) -> bytes:
        self.spare -= len(text)
        if self.spare < 0:
            raise ValueError("it makes more bytes than it holds")
        return text.encode("latin-1")


def _carry_out(name: str, argument: Any, machine: _Machine) -> None:
    """Carries out one operation of a pickle (PEP 307)."""
    stack, memo = machine.stack, machine.memo
    if name in _VALUES:
        stack.append(_VALUES[name](argument))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "APPEND":
        item = stack.pop()
        _of(list, stack[-1]).append(item)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _of(dict, stack[-1])[key] = value
    elif name in ("TUPLE", "APPENDS", "SETITEMS"):
        items = _to_mark(stack)
        if name == "TUPLE":
            stack.append(tuple(items))
        elif name == "APPENDS":
            _of(list, stack[-1]).extend(items)
        else:
            _of(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        items = tuple(stack[-count:])
        if len(items) < count or any(item is _MARK for item in items):
            raise IndexError("too few values for a tuple")
        stack[-count:] = [items]
    elif name == "STACK_GLOBAL":
        attribute, module = _of(str, stack.pop()), _of(str, stack.pop())
        stack.append(_global(f"{module} {attribute}"))
    elif name == "REDUCE":
        arguments, function = _of(tuple, stack.pop()), stack.pop()
        stack.append(_called(function, arguments, machine))
    elif name == "BUILD":
        state = _of(tuple, stack.pop())
        _set_state(stack[-1], state, machine)
    elif name not in ("PROTO", "FRAME"):
        raise ValueError(f"it holds the operation {name}")


_VALUES = {
    "MARK": lambda _: _MARK,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "GLOBAL": lambda name: _global(name),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda number: number),
    **dict.fromkeys(
        ("SHORT_BINSTRING", "BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        lambda text: text,
    ),
}
"""What an operation that makes a value pushes, by its name."""


def _global(name: str) -> _Named:
    if name not in _GLOBALS:
        raise ValueError(f"it names {shortened(name)}")
    return _GLOBALS[name]


def _to_mark(stack: list[Any]) -> list[Any]:
    place = next(number for number in range(len(stack) - 1, -1, -1) if stack[number] is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _called(function: Any, arguments: tuple[Any, ...], machine: _Machine) -> Any:
    if function is _RECONSTRUCT and arguments[:1] == (_ARRAY,):
        return _Array()
    if function is _DTYPE and arguments and arguments[0] in DTYPES:
        return _Type(arguments[0])
    if function is _ENCODE and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
        return machine.encoded(_of(str, arguments[0]))
    raise ValueError("it calls what makes no array of whole numbers")


def _set_state(value: Any, state: tuple[Any, ...], machine: _Machine) -> None:
    if isinstance(value, _Type):
        # (version, byte order, no subtype, no names, no fields, ...)
        if len(state) < 5 or state[1] not in ("<", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("it holds a type other than plain whole numbers")
        return
    _, shape, of, fortran, content = state
    content = machine.encoded(content) if isinstance(content, str) else _of(bytes, content)
    shape = tuple(_of(int, side) for side in _of(tuple, shape))
    if not 1 <= len(shape) <= 4 or min(shape) < 0 or fortran:
        raise ValueError(f"it holds an array of the shape {shape}")
    # Refuses a shape that the bytes do not fill.
    _of(_Array, value).values = np.frombuffer(content, DTYPES[_of(_Type, of).code]).reshape(shape)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"it has a {type(value).__name__} where a {kind.__name__} must be")
    return value


def _filled(value: Any, depth: int = 0) -> Any:
    """The value with finished arrays; at most a list or dict in another one."""
    if isinstance(value, _Array):
        if value.values is None:
            raise ValueError("it holds an array without content")
        return value.values
    if isinstance(value, dict) and depth < 2:
        return {key: _filled(item, depth + 1) for key, item in value.items()}
    if type(value) in (str, bytes, int, bool, list, tuple) or value is None:
        return value
    raise ValueError(f"it holds a {type(value).__name__} at its top")
