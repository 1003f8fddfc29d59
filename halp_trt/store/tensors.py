"""Tensors as safetensors: names, numbers and a few words, nothing executable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from halp_trt.errors import ArtefactError
from halp_trt.store.files import read_bytes, sha256_file, write_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["load_tensor_metadata", "load_tensors", "save_tensors"]


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
        ArtefactError: the file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        return dict(parse(read_bytes(path)))
    except SafetensorError as error:
        raise ArtefactError(f"{path} is not a whole safetensors file ({error}); make it again") from error


def load_tensor_metadata(path: str | Path) -> dict[str, str]:
    """The names and words stored beside the tensors of a safetensors file.

    Raises:
        ArtefactError: the file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    sha256_file(path)  # a path that cannot be read gets the sentence of every other file
    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ArtefactError(f"{path} is not a whole safetensors file ({error}); make it again") from error
