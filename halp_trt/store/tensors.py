"""Tensors as safetensors: names, numbers and a few words, nothing executable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from halp_trt.errors import ArtefactError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.store.files import write_bytes
from halp_trt.store.reading import TENSORS_BYTES, check_file, read_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["load_tensor_metadata", "load_tensors", "save_tensors"]

_Value = TypeVar("_Value")


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, atomically.

    Raises:
        ArtefactError: the file cannot be written.
    """
    from safetensors.torch import save as serialise

    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, serialise(own, dict(metadata or {})))


def load_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        ArtefactError: the file is missing, truncated or not safetensors, or has a number format that PyTorch has not.
    """
    from safetensors.torch import load as parse

    load_tensor_metadata(path)  # the header is checked before the rest is read
    return _parsed(path, lambda: dict(parse(read_bytes(path, TENSORS_BYTES))))


def load_tensor_metadata(path: str | Path) -> dict[str, str]:
    """The names and words stored beside the tensors of a safetensors file.

    Raises:
        ArtefactError: the file is missing, truncated or not safetensors.
    """
    from safetensors import safe_open

    def parse() -> dict[str, str]:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})

    check_file(path, TENSORS_BYTES)
    return _parsed(path, parse)


def _parsed(path: str | Path, parse: Callable[[], _Value]) -> _Value:
    """The result of the library's parser, whose errors become ours."""
    try:
        return parse()
    except ArtefactError:
        raise
    except Exception as error:  # its own class for the header, PyTorch's for tensors that no memory holds, and others
        raise_if_stopped(error)
        reason = brief(str(error)) or type(error).__name__
        raise ArtefactError(f"{path} is not a whole safetensors file ({reason}); make it again") from error
