"""Pickles of other forms than PyTorch's default, rewritten in that form; nothing in them is executed.

PyTorch's restricted reader knows protocol 2, in files of ``torch.save``. Here protocols 3 to 5 become protocol 2,
instruction by instruction, and a plain pickle becomes such a file. What a file may name or call is left to the reader.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

__all__ = ["CLASS_OF_MODULE", "UnknownPickleError", "in_default_form"]

CLASS_OF_MODULE = ("halp_trt", "class_of_module")
"""Module and name of a function in rewritten pickles, which gives the class among a class and its source code."""
_ZIP = b"PK\x03\x04"
_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""The number at the start of files that ``torch.save`` wrote before it wrote archives."""
_OLD_PICKLES = 5
"""Pickles at the start of such a file: three of its kind, the value, and the keys of the storages behind them."""
_NEWEST = 5
"""The newest protocol."""
_MODULE = "module"
"""The word before the class of a network in such a file, which has the source code behind it."""
_LONGEST_NAME = 250
"""Most letters of a text that may be part of a global's name."""

_UNCHANGED = frozenset(
    """APPEND APPENDS BINFLOAT BININT BININT1 BININT2 BUILD EMPTY_DICT EMPTY_LIST EMPTY_TUPLE GLOBAL LONG1
    MARK NEWFALSE NEWOBJ NEWTRUE NONE REDUCE SETITEM SETITEMS SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2
    TUPLE3""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
_INSTEAD: Mapping[str, bytes] = MappingProxyType(
    {
        "PROTO": b"\x80\x02",
        "EMPTY_SET": b"]",  # sets become lists, and frozen ones tuples
        "ADDITEMS": b"e",
        "FROZENSET": b"t",
        "NEWOBJ_EX": b"\x86\x81",  # arguments by name become arguments in order, which husks ignore
    }
)
"""The instructions of protocol 2 that do the work of later ones."""
_TEXTS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})


class UnknownPickleError(ValueError):
    """A pickle has an instruction that no weights need, or is damaged."""


def in_default_form(path: Path) -> bytes | None:
    """The content of a pickled file in the form of ``torch.save`` with its default protocol; None if it has it.

    Raises:
        OSError: the file cannot be read.
        UnknownPickleError, ValueError, zipfile.BadZipFile: it is damaged, or has an unknown instruction.
    """
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(_ZIP):
        return _archive(path)
    if start[:1] != b"\x80":  # no pickle of protocol 2 or later
        return None
    content = path.read_bytes()
    if _MAGIC not in start:
        return _archive_of(_rewritten(content)[0])
    return None if start[1] == 2 and _text(_MODULE) not in content else _old_file(content)


def _archive(path: Path) -> bytes | None:
    """The archive with its pickle rewritten; None if that is of protocol 2."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        place = next((name for name in names if name.endswith("/data.pkl")), None)
        if place is None or archive.read(place)[:2] in (b"", b"\x80\x02"):
            return None
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as copy:
            for name in names:
                content = archive.read(name)
                copy.writestr(name, _rewritten(content)[0] if name == place else content)
    return made.getvalue()


def _archive_of(pickle: bytes) -> bytes:
    """A file as ``torch.save`` writes it, of a pickle that holds its own storages."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in (("data.pkl", pickle), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)
    return made.getvalue()


def _old_file(content: bytes) -> bytes:
    """A file as ``torch.save`` wrote it before it wrote archives: pickles, then the storages as they are."""
    parts, begin = [], 0
    for _ in range(_OLD_PICKLES):
        part, begin = _rewritten(content, begin)
        parts.append(part)
    return b"".join((*parts, content[begin:]))


# ---- one pickle -----------------------------------------------------------------------------------------------------


def _rewritten(content: bytes, begin: int = 0) -> tuple[bytes, int]:
    """A pickle in protocol 2, and the position behind it."""
    file = io.BytesIO(content)
    file.seek(begin)
    steps = list(pickletools.genops(file))
    ends = [*(position or 0 for _, _, position in steps[1:]), file.tell()]
    writing = _Writing()
    for (instruction, value, position), end in zip(steps, ends, strict=True):
        writing.add(instruction.name, value, content[position:end])
    return b"".join(writing.parts), file.tell()


class _Writing:
    """Writes a pickle of protocol 2.

    Later protocols put the module and the name of a global on the stack as texts, and take them from there, also from
    the memo. Texts are therefore kept by value: they are written again instead of being read from the memo, so that
    both texts of a global are the last two parts and can be replaced.

    Attributes:
        parts: the instructions written so far.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._memo: dict[int, str | None] = {}
        self._on_top: list[str] = []

    def add(self, name: str, value: object, raw: bytes) -> None:
        """Writes an instruction.

        Args:
            name: its name in ``pickletools``.
            value: its argument.
            raw: its bytes.

        Raises:
            UnknownPickleError: it has no place in weights.
        """
        if name == "FRAME":
            return
        if name in _PUTS:
            self._put(len(self._memo) if name == "MEMOIZE" else _number(value))
        elif name in _GETS:
            self._get(_number(value))
        elif name in _TEXTS:
            self._text(str(value))
        elif name == "STACK_GLOBAL":
            self._global()
        elif name == "BINPERSID":
            self._from_outside()
        else:
            self._on_top.clear()
            self.parts.append(_plain(name, value, raw))

    def _text(self, text: str) -> None:
        if len(text) > _LONGEST_NAME:
            self._on_top.clear()
        else:
            self._on_top = [*self._on_top[-1:], text]
        self.parts.append(_text(text))

    def _put(self, place: int) -> None:
        self._memo[place] = self._on_top[-1] if self._on_top else None
        if not self._on_top:
            self.parts.append(_with_place(b"q", b"r", place))

    def _get(self, place: int) -> None:
        if place not in self._memo:
            raise UnknownPickleError(f"reads place {place} of the memo, which is empty")
        text = self._memo[place]
        if text is not None:
            self._text(text)
            return
        self._on_top.clear()
        self.parts.append(_with_place(b"h", b"j", place))

    def _global(self) -> None:
        if len(self._on_top) < 2 or any("\n" in text for text in self._on_top):
            raise UnknownPickleError("computes the name of a global")
        module, name = self._on_top
        self.parts[-2:] = [f"c{module}\n{name}\n".encode()]
        self._on_top.clear()

    def _from_outside(self) -> None:
        """Numbers that lie outside the pickle, or the class of a network, which is all of it that counts."""
        self._on_top.clear()
        mark = next((place for place in reversed(range(len(self.parts))) if self.parts[place] == b"("), None)
        if mark is None or self.parts[mark + 1] != _text(_MODULE):
            self.parts.append(b"Q")
            return
        self.parts.insert(mark, "c{}\n{}\n".format(*CLASS_OF_MODULE).encode())
        self.parts.append(b"R")


def _plain(name: str, value: object, raw: bytes) -> bytes:
    """An instruction that touches neither memo nor names."""
    if name in _UNCHANGED:
        return raw
    if name in _INSTEAD and (name != "PROTO" or _number(value) <= _NEWEST):
        return _INSTEAD[name]
    if name in _BYTES and isinstance(value, bytes | bytearray):  # as protocol 2 writes them
        return b"c_codecs\nencode\n" + _text(value.decode("latin-1")) + _text("latin1") + b"\x86R"
    raise UnknownPickleError(f"unknown instruction {name}")


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise UnknownPickleError(f"has {value!r} in the place of a number")
    return value


def _text(text: str) -> bytes:
    written = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(written)) + written


def _with_place(short: bytes, long: bytes, place: int) -> bytes:
    return short + bytes([place]) if place < 256 else long + struct.pack("<I", place)
