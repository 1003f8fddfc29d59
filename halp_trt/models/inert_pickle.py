"""Pickled checkpoints, read without executing anything: tensors are rebuilt, every other object stays an empty husk."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import serialization

from halp_trt.errors import ArtefactError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.pickle_forms import CLASS_OF_MODULE, UnknownPickleError, in_default_form
from halp_trt.store import TENSORS_BYTES, open_file

__all__ = ["Husk", "read_pickle"]

_STORAGE = "torch.storage._load_from_bytes"
"""The function that a plain pickle names for the numbers of a tensor."""
_MOST_GROWTH = 8
"""Factor by which the entries of an archive may be larger than its file; those of torch.save are not compressed."""
_FREE_BYTES = 64 << 20
"""Bytes of entries that are never too many."""
_MOST_NAMES = 200
"""Largest number of unknown classes in a file; more are no checkpoint's."""


class Husk(dict[Any, Any]):
    """The place of an object that is no tensor: entries and attributes as stored, none of its class's code.

    Attributes:
        attributes: what the object's ``__dict__`` held; anything if the object stored something else.
    """

    attributes: Any = None

    def __init__(self, *_: object, **__: object) -> None:
        """Ignores the arguments of the object's constructor."""

    def __setstate__(self, state: Any) -> None:
        """Keeps the stored attributes."""
        self.attributes = state

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key
    __eq__ = object.__eq__


class _Maker:
    """A stand-in for a class of containers, which PyTorch's reader fills only if they are its own."""

    def __init__(self, kind: type) -> None:
        """Makes empty containers of this kind, whether called or asked for a new object."""
        self.kind = kind
        self.__dict__["__new__"] = self

    def __call__(self, *_: object) -> object:
        """Returns an empty container."""
        return self.kind()


_CONTAINERS = MappingProxyType({"SETITEM": OrderedDict, "SETITEMS": OrderedDict, "append to": list, "extend": list})
"""The container that an object has to be, by what PyTorch's reader could not do to its husk."""


def read_pickle(path: Path) -> Any:
    """The value in a file of ``torch.save``, new or old, or in a plain pickle; nothing that it names is called.

    PyTorch's restricted reader knows tensors and plain containers. Every other name gets a class of husks, or where it
    turns out to be a container of its own kind, a plain one.

    Raises:
        ArtefactError: the file is missing, of another kind, or names functions of the operating system.
    """
    _check_kind(path)
    try:
        rewritten = in_default_form(path)
    except Exception as cause:  # a damaged file may hold anything
        raise_if_stopped(cause)
        raise _unreadable(path, cause) from cause

    def source() -> str | io.BytesIO:
        return str(path) if rewritten is None else io.BytesIO(rewritten)

    stands: dict[str, object] = {name: _husk(name) for name in _unknown_names(source())}
    stands |= {_STORAGE: _storage, ".".join(CLASS_OF_MODULE): _class_of_module}
    while True:
        try:
            with serialization.safe_globals([(stand, name) for name, stand in stands.items()]):  # type: ignore[misc]
                return torch.load(source(), map_location="cpu", weights_only=True)
        except Exception as cause:
            raise_if_stopped(cause)
            fresh = _stands_for(str(cause))
            if (
                not fresh
                or len(stands) > _MOST_NAMES
                or all(name in stands and isinstance(stands[name], _Maker) for name in fresh)
            ):
                raise _unreadable(path, cause) from cause
            stands |= fresh


def _storage(content: bytes) -> Any:
    """The numbers of one tensor in a plain pickle, which holds them as a file of their own."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _class_of_module(word: str, husk: type[Husk], *source: object) -> type[Husk]:
    """The class of a network in an old file, which stores its source code, too."""
    return husk


def _husk(name: str) -> type[Husk]:
    return type(f"Husk of {name}", (Husk,), {})


def _stands_for(message: str) -> dict[str, object]:
    """The stand-ins, by name, that a message of PyTorch's reader asks for; none if it is about something else."""
    if unknown := re.search(r"Unsupported global: GLOBAL (\S+) was not an allowed", message):
        return {name: _husk(name) for name in (unknown[1], f"builtins.{unknown[1]}")}
    filled = re.search(r"Can only (SETITEMS?|append to|extend) .*but got <class '[^']*Husk of ([^']+)'>", message)
    return {filled[2]: _Maker(_CONTAINERS[filled[1]])} if filled else {}


def _unknown_names(source: str | io.BytesIO) -> set[str]:
    """The classes and functions that a file names and PyTorch's reader does not know; empty for an old file."""
    try:
        return set(serialization.get_unsafe_globals_in_checkpoint(source))
    except Exception as error:  # old or damaged: reading it tells
        raise_if_stopped(error)
        return set()


def _unreadable(path: Path, cause: Exception) -> ArtefactError:
    if isinstance(cause, FileNotFoundError):
        return ArtefactError(f"weights {path} are not there; name a file of weights")
    if blocked := re.search(r"unsupported GLOBAL (\S+) whose module", str(cause)):
        return ArtefactError(
            f"weights {path} call {brief(blocked[1])}, which no weights need; do not open them anywhere"
        )
    if isinstance(cause, UnknownPickleError) or re.search(r"Unsupported operand", str(cause)):
        return ArtefactError(
            f"weights {path} are unreadable: a pickle with instructions that no weights need; save model.state_dict() "
            "with torch.save"
        )
    return ArtefactError(
        f"weights {path} are unreadable ({type(cause).__name__}); expected a .safetensors file or a state dict of "
        "tensors saved with torch.save"
    )


def _check_kind(path: Path) -> None:
    """Refuses what only looks like a file of weights, with its true kind."""
    if path.is_dir():
        raise ArtefactError(f"weights {path} are a folder; name one file with all tensors in it")
    if not path.exists():
        return
    with open_file(path, TENSORS_BYTES) as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ArtefactError(f"weights {path} are a pointer of Git LFS, not the file itself; run: git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise ArtefactError(f"weights {path} are a web page, not a file of weights; download the file itself")
    if zipfile.is_zipfile(path):
        _check_archive(path)
    elif _is_tar(path):
        raise ArtefactError(f"weights {path} are a tar archive; save model.state_dict() with torch.save")


def _check_archive(path: Path) -> None:
    """Refuses a program, and what would take far more memory than it has bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as cause:  # the library raises errors of several kinds for a damaged directory
        raise_if_stopped(cause)
        raise _unreadable(path, cause) from cause
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise ArtefactError(
            f"weights {path} are a TorchScript archive, which is a program; save the state_dict() of its module"
        )
    if sum(entry.file_size for entry in entries) > _MOST_GROWTH * path.stat().st_size + _FREE_BYTES:
        raise ArtefactError(f"weights {path} are compressed; save model.state_dict() with torch.save, which does not")


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception as error:  # decompressors have errors of their own; whatever it is, it is no sound archive
        raise_if_stopped(error)
        return False
