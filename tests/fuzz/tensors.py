"""Changes to files of tensors: safetensors' header and bytes, and odd tensors and objects in pickles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halp_trt.store import load_tensor_metadata, load_tensors, save_tensors
from halp_trt.workflows.checkpoint import seal_of
from tests.fuzz.mutations import TEXTS, Random, junk, mutated_bytes, mutated_json

_LENGTH = 8
_TYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F4",
    "C64",
    "I64",
    "I8",
    "U16",
    "BOOL",
    "",
    "X",
)


def mutated_safetensors(data: bytes, rng: Random) -> bytes:
    """Another header, a header that lies, or other bytes."""
    size = int.from_bytes(data[:_LENGTH], "little")
    header, body = data[_LENGTH : _LENGTH + size], data[_LENGTH + size :]
    kind = rng.randrange(8)
    if kind < 2:
        header = mutated_json(json.loads(header), rng)
    elif kind < 5:
        header = _entry_changed(json.loads(header), rng)
    elif kind == 5:
        length = rng.choice((0, 1, size - 1, size + 1, 10**8 + 1, 2**63, 2**64 - 1))
        return length.to_bytes(_LENGTH, "little") + header + body
    else:
        return mutated_bytes(data, rng)
    return len(header).to_bytes(_LENGTH, "little") + header + body


def _entry_changed(header: dict[str, Any], rng: Random) -> bytes:
    """A tensor's type, shape or place changed."""
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry, kind = header[name], rng.randrange(5)
    start, end = entry["data_offsets"]
    if kind == 0:
        entry["dtype"] = rng.choice(_TYPES)
    elif kind == 1:
        entry["shape"] = rng.choice(([], [0], [-1], [2**62, 4], [1] * 2000, entry["shape"][::-1], [end - start]))
    elif kind == 2:
        entry["data_offsets"] = rng.choice(([start, end + 4], [0, 4], [end, start], [2**63, 2**63], [start, end, end]))
    elif kind == 3:
        header[rng.choice(TEXTS)] = header.pop(name)
    else:
        entry.update({"dtype": rng.choice(_TYPES), "shape": [(end - start) // rng.choice((1, 2, 8))]})
    return json.dumps(header).encode()


def mutated_checkpoint(path: Path, rng: Random) -> None:
    """Other words, tensors or bytes in a checkpoint; half of them under a seal that fits."""
    if rng.random() < 0.3:
        path.write_bytes(mutated_safetensors(path.read_bytes(), rng))
        return
    words, tensors = json.loads(load_tensor_metadata(path)["checkpoint"]), load_tensors(path)
    text = json.dumps(words)
    if rng.random() < 0.6:
        text = mutated_json(words, rng).decode("utf-8", "replace")
    else:
        name = rng.choice(list(tensors))
        tensors[rng.choice((name, name, "module.7.weight", "optimizer.:x", "optimizer.momentum_buffer:9"))] = _odd(rng)
    tensors = {name: value for name, value in tensors.items() if value.layout == torch.strided and not value.is_meta}
    tensors = {name: value for name, value in tensors.items() if not (value.is_quantized or value.is_complex())}
    seal = seal_of(text, tensors) if rng.random() < 0.8 else "0" * 64
    save_tensors(path, tensors, {"checkpoint": text, "sha256": seal})


# ---- pickles --------------------------------------------------------------------------------------------------------


def mutated_pickle(path: Path, rng: Random) -> None:
    """Other bytes, or a checkpoint with odd tensors and objects in it."""
    if rng.random() < 0.4:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return
    stored = torch.load(path, weights_only=True)
    state = stored.get("state_dict", stored)
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(state))
        kind = rng.randrange(6)
        if kind < 3:
            state[name] = _odd(rng)
        elif kind == 3:
            value = state.pop(name)
            state[rng.choice((*TEXTS, 3, 10**300, None, 1.5, ("a", 1), value))] = value
        elif kind == 4:
            state[name] = rng.choice((junk(rng), stored, [state], {"a": {"b": {"c": {"d": {"e": state}}}}}))
        else:
            stored["more"] = rng.choice((stored, state, [stored] * 3, _deep(), torch.nn.Linear(2, 2)))
    torch.save(stored, path, _use_new_zipfile_serialization=path.name != "old.pth")


def _odd(rng: Random) -> torch.Tensor:
    """A tensor that no network of ours has."""
    return rng.choice(_ODD)()


def _deep() -> Any:
    value: Any = {}
    for _ in range(200):
        value = {"a": value}
    return value


_ODD: tuple[Callable[[], torch.Tensor], ...] = (
    lambda: torch.ones(16, 16, 3, 3).to(torch.float8_e4m3fn),
    lambda: torch.ones(16, 16, 3, 3).to(torch.float8_e5m2),
    lambda: torch.ones(16, dtype=torch.complex64),
    lambda: torch.ones(16, device="meta"),
    lambda: torch.ones(3, 16).to_sparse(),
    lambda: torch.ones(3, 16).to_sparse_csr(),
    lambda: torch.quantize_per_tensor(torch.ones(16), 0.1, 0, torch.qint8),
    lambda: torch.full((16,), float("nan")),
    lambda: torch.ones(16, dtype=torch.int8),
    lambda: torch.ones(16, dtype=torch.bool),
    lambda: torch.ones(16, dtype=torch.uint16),
    lambda: torch.ones(0),
    lambda: torch.tensor(1.0),
    lambda: torch.ones(1).expand(16),
    lambda: torch.ones(16, dtype=torch.float64) * 1e300,
)
