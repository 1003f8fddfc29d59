"""Weights in the files that trainers write, and files that are something else."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import enum
import json
import os
import pathlib
import pickle  # noqa: TID251 (what others write is to be read)
import types
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from halp_trt.errors import ArtefactError, ModelError
from halp_trt.models.inert_pickle import Husk, read_pickle
from halp_trt.models.weights import load_weights, read_weights
from halp_trt.store import save_tensors
from halp_trt.texts import sentence

Tensors = Mapping[str, torch.Tensor]


def network(seed: int = 0, *, channels: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU())
    return nn.Sequential(collections.OrderedDict(body=body, head=nn.Linear(channels, 2)))


def behind(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def check_loads(path: Path, expected: Tensors) -> list[str]:
    """Loads a file into a fresh network, compares every tensor, and gives the warnings."""
    module = network(9)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_weights(module, path)
    found = module.state_dict()
    assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in expected.items())
    assert {value.dtype for name, value in found.items() if "tracked" not in name} == {torch.float32}
    return [str(one.message) for one in told]


# ---- prefixes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod.", "model.", "net.", "model.module.net."]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_wrappers_are_found_by_the_networks_names(tmp_path: Path, prefix: str, suffix: str) -> None:
    saved, path = network(1).state_dict(), tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(behind(prefix, saved), path)
    else:
        save_tensors(path, behind(prefix, saved))
    assert check_loads(path, saved) == []


def test_parts_that_were_wrapped_alone_load(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    inside = {name.replace("body.", "body.module._orig_mod."): value for name, value in saved.items()}
    torch.save(inside, tmp_path / "w.pth")
    assert check_loads(tmp_path / "w.pth", saved) == []


def test_a_networks_own_part_named_module_stays(tmp_path: Path) -> None:
    module = nn.Sequential(collections.OrderedDict(module=nn.Linear(2, 2), model=nn.Linear(2, 2)))
    torch.save(module.state_dict(), tmp_path / "w.pth")
    fresh = nn.Sequential(collections.OrderedDict(module=nn.Linear(2, 2), model=nn.Linear(2, 2)))
    load_weights(fresh, tmp_path / "w.pth")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))


def test_lightnings_checkpoints_load_without_the_losss_weights(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    state = {**behind("model.", saved), "criterion.pos_weight": torch.ones(2)}
    torch.save(
        {"epoch": 3, "global_step": 9, "state_dict": state, "hyper_parameters": {"lr": 0.1}}, tmp_path / "w.ckpt"
    )
    assert check_loads(tmp_path / "w.ckpt", saved) == []


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_averaged_models_load_without_their_counter(tmp_path: Path, kind: str) -> None:
    average = get_ema_multi_avg_fn(0.9) if kind == "ema" else None  # type: ignore[no-untyped-call]  # PyTorch's
    averaged = AveragedModel(network(1), multi_avg_fn=average)
    averaged.update_parameters(network(1))
    averaged.update_parameters(network(2))
    torch.save({"swa": averaged.state_dict()}, tmp_path / "w.pth")
    assert check_loads(tmp_path / "w.pth", averaged.module.state_dict()) == []


# ---- keys -----------------------------------------------------------------------------------------------------------

KEYS = ("state_dict", "model", "model_state_dict", "net", "params", "ema", "state_dict_ema", "model_ema", "params_ema")


@pytest.mark.parametrize("key", [*KEYS, "teacher", "my_own_key"])
def test_the_state_dict_is_found_under_any_key(tmp_path: Path, key: str) -> None:
    saved = network(1).state_dict()
    torch.save({"epoch": 1, key: saved, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, tmp_path / "w.pth")
    assert check_loads(tmp_path / "w.pth", saved) == []
    assert read_weights(tmp_path / "w.pth").keys() == saved.keys()


def test_nested_keys_and_prefixes_load(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    torch.save({"model": {"state_dict": behind("_orig_mod.module.", saved)}, "epoch": torch.tensor(3)}, tmp_path / "w")
    assert check_loads(tmp_path / "w", saved) == []


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [("state_dict", "state_dict_ema"), ("model", "ema"), ("params", "params_ema"), ("student", "teacher")],
)
def test_of_several_the_averaged_one_is_taken_and_that_is_said(tmp_path: Path, plain: str, averaged: str) -> None:
    first, second = network(1).state_dict(), network(2).state_dict()
    torch.save({plain: first, averaged: behind("module.", second)}, tmp_path / "w.pth")
    (said,) = check_loads(tmp_path / "w.pth", second)
    assert f"hold 2 state dicts of this network, {averaged}.module is taken and not {plain}" in said


def test_of_several_prefixes_the_averaged_one_is_taken_and_that_is_said(tmp_path: Path) -> None:
    first, second = network(1).state_dict(), network(2).state_dict()
    torch.save({"state_dict": behind("model.", first) | behind("model_ema.module.", second)}, tmp_path / "w.ckpt")
    (said,) = check_loads(tmp_path / "w.ckpt", second)
    assert "state_dict.model_ema.module is taken and not state_dict.model" in said


def test_a_state_dict_of_another_network_beside_it_is_passed_over(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    torch.save({"ema": nn.Linear(2, 2).state_dict(), "model": saved}, tmp_path / "gan.pth")
    assert check_loads(tmp_path / "gan.pth", saved) == []


# ---- what else lies in checkpoints ----------------------------------------------------------------------------------


class Colour(enum.Enum):
    """Some setting."""

    RED = 1


class Settings(dict[str, Any]):
    """A dictionary whose entries are attributes, too, as several libraries have it."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(entries)
        self.__dict__.update(entries)


def rate(step: int) -> float:
    return 1 / (step + 1)


def optimiser() -> torch.optim.Optimizer:
    module = network(3)
    made = torch.optim.AdamW(module.parameters())
    module.get_submodule("body")(torch.randn(2, 3, 8, 8)).sum().backward()
    made.step()
    return made


BESIDE: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, path=pathlib.Path("data"), inner=argparse.Namespace(a=[1, 2])),
    "simple namespace": lambda: types.SimpleNamespace(a=1),
    "numpy scalars": lambda: {"loss": np.float64(0.3), "steps": np.int64(3), "history": np.ones(3)},
    "path": lambda: pathlib.PurePosixPath("a/b"),
    "default dict": lambda: collections.defaultdict(list, {"a": [1]}),
    "deque": lambda: collections.deque([1.0, 2.0], maxlen=5),
    "settings": lambda: Settings(lr=0.1, inner=Settings(a=1)),
    "enum": lambda: Colour.RED,
    "date": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "set": lambda: {1, 2},
    "function": lambda: rate,
    "optimiser": optimiser,
    "scheduler": lambda: torch.optim.lr_scheduler.LambdaLR(optimiser(), rate),
}


def plain(value: object, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(value, protocol))


FORMS: dict[str, Callable[[object, Path, int], None]] = {
    "new": lambda value, path, protocol: torch.save(value, path, pickle_protocol=protocol),
    "old": lambda value, path, protocol: torch.save(
        value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False
    ),
    "plain": plain,
}
"""Ways to write a value into a file: archives and files of torch.save, and pickles alone."""
PROTOCOLS = (2, 4, 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", BESIDE)
def test_whatever_lies_beside_the_state_dict_stays_a_husk(tmp_path: Path, kind: str, form: str, protocol: int) -> None:
    saved, path = network(1).state_dict(), tmp_path / "w.pth"
    FORMS[form]({"args": BESIDE[kind](), "state_dict": saved}, path, protocol)
    assert check_loads(path, saved) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_a_whole_network_gives_its_parameters_and_persistent_buffers(tmp_path: Path, form: str, protocol: int) -> None:
    module = network(1).half()
    module.get_submodule("body").register_buffer("grid", torch.ones(2), persistent=False)
    FORMS[form]({"model": None, "ema": module, "date": "today"}, tmp_path / "detector.pt", protocol)
    assert check_loads(tmp_path / "detector.pt", module.state_dict()) == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_every_kind_and_plain_values_are_read_from_every_form(
    tmp_path: Path, form: str, protocol: int
) -> None:
    shared = torch.arange(6.0)
    stored: dict[str, Any] = {
        "whole": shared, "part": shared[2:4], "turned": torch.rand(3, 4).t(), "half": torch.rand(3).bfloat16(),
        "parameter": nn.Parameter(torch.ones(2)), "empty": torch.ones(0),
        "counts": torch.arange(3), "nested": {"many": [[i] for i in range(300)], "pair": (1, (2.5, None, True))},
        "long": ["x" * 2000] * 2, "name": "torch", "bytes": b"\x00\xff", "large": 2**70, "set": {1},
        "fixed": frozenset("a"),
    }  # fmt: skip
    if form == "new":  # PyTorch reads these bits from no other form
        stored["eight"] = torch.rand(2).to(torch.float8_e4m3fn)
    FORMS[form](stored, tmp_path / "w", protocol)
    found = read_pickle(tmp_path / "w")
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        if isinstance(value, torch.Tensor):
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            assert torch.equal(found[name].float(), value.float())
        elif name not in ("set", "fixed"):
            assert found[name] == value


class Evil:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def made_file(marker: Path) -> list[tuple[Callable[..., object], tuple[object, ...]]]:
    """Calls that would write a file."""
    return [
        (os.system, (f"touch {marker}",)),
        (eval, (f"open({str(marker)!r}, 'w')",)),
        (exec, (f"open({str(marker)!r}, 'w').close()",)),
        (open, (str(marker), "w")),
        (pathlib.Path.touch, (marker,)),
        (__import__("subprocess").run, (["touch", str(marker)],)),
    ]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["beside", "inside", "alone"])
def test_a_malicious_file_executes_nothing(tmp_path: Path, number: int, protocol: int, form: str, place: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "w.pth"
    function, arguments = made_file(marker)[number]
    saved, evil = network(1).state_dict(), Evil(function, *arguments)
    stored = {"beside": {"args": evil, "state_dict": saved}, "inside": {**saved, "evil": evil}, "alone": evil}[place]
    FORMS[form](stored, path, protocol)
    with contextlib.suppress(ArtefactError):
        check_loads(path, saved)
    assert not marker.exists()
    if form == "plain":
        pickle.loads(path.read_bytes())  # noqa: S301 (it is this test's own)
    else:
        torch.load(path, weights_only=False)
    assert marker.exists(), "the file is harmless, so that this test proves nothing"


@pytest.mark.parametrize("number", range(6))
def test_the_numbers_of_a_tensor_in_a_plain_pickle_execute_nothing_either(tmp_path: Path, number: int) -> None:
    marker, inside = tmp_path / "executed", tmp_path / "inside"
    function, arguments = made_file(marker)[number]
    FORMS["old"](Evil(function, *arguments), inside, 2)
    plain(Evil(torch.storage._load_from_bytes, inside.read_bytes()), tmp_path / "w", 4)
    with contextlib.suppress(ArtefactError):
        read_pickle(tmp_path / "w")
    assert not marker.exists()
    pickle.loads((tmp_path / "w").read_bytes())  # noqa: S301 (it is this test's own)
    assert marker.exists(), "the file is harmless, so that this test proves nothing"


def written(*instructions: bytes) -> bytes:
    return b"\x80\x04" + b"".join(instructions) + b"."


def text(value: bytes) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value


ODD: dict[str, bytes] = {
    "a name computed by a call": written(text(b"os"), b"C\x06system", b"\x93"),
    "a name out of a container": written(text(b"os"), text(b"system"), b"\x86\x93"),
    "a name of one part": written(text(b"system"), b"\x93"),
    "instructions in a name": written(text(b"os"), text(b"x\ncos\nsystem"), b"\x93"),
    "an empty place of the memo": written(b"h\x07"),
    "an extension": written(b"\x82\x01"),
    "a buffer beside the file": written(b"\x97"),
    "a later protocol": b"\x80\x09K\x01.",
    "no end": written(text(b"a"))[:-1],
    "a text that is longer than the file": written(b"\x8d" + b"\xff" * 8),
}


@pytest.mark.parametrize("kind", ODD)
def test_pickles_that_no_trainer_writes_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "w").write_bytes(ODD[kind])
    with pytest.raises(ArtefactError, match="unreadable"):
        read_pickle(tmp_path / "w")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_cut_off_is_unreadable(tmp_path: Path, form: str) -> None:
    FORMS[form]({"a": torch.ones(3), "b": argparse.Namespace(c=1)}, tmp_path / "w", 4)
    whole = (tmp_path / "w").read_bytes()
    for length in range(0, len(whole) - 1, 37):
        (tmp_path / "w").write_bytes(whole[:length])
        with pytest.raises(ArtefactError, match="unreadable"):
            read_pickle(tmp_path / "w")


def test_husks_of_one_file_do_not_change_those_of_the_next(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(a=1), tmp_path / "a.pth")
    first, second = read_pickle(tmp_path / "a.pth"), read_pickle(tmp_path / "a.pth")
    assert isinstance(first, Husk)
    assert first.attributes == {"a": 1}
    assert type(first) is not type(second)


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named_key_by_key_the_first_ten(tmp_path: Path) -> None:
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    saved = deep.state_dict()
    torch.save({"state_dict": behind("module.", saved)}, tmp_path / "whole.pth")
    load_weights(deep, tmp_path / "whole.pth")
    names = list(saved)
    torch.save({name.replace("weight", "kernel"): value for name, value in saved.items()}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"8 missing .*, 8 unexpected") as refused:
        load_weights(deep, tmp_path / "other.pth")
    assert f"8 missing ({', '.join(name for name in names if 'weight' in name)})" in str(refused.value)
    torch.save({"extra": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(ModelError, match="16 missing") as refused:
        load_weights(deep, tmp_path / "none.pth")
    assert f"16 missing ({', '.join(names[:10])} ...), 1 unexpected (extra)" in str(refused.value)
    torch.save({name: torch.ones(3, 3) for name in names}, tmp_path / "shapes.pth")
    with pytest.raises(ModelError, match="have other shapes") as refused:
        load_weights(deep, tmp_path / "shapes.pth")
    shapes = [f"{name} (3, 3) not {tuple(saved[name].shape)}" for name in names[:10]]
    assert f"other shapes: {', '.join(shapes)} ...;" in str(refused.value)
    assert len(sentence(str(refused.value))) == len(str(refused.value)), "all of it is shown"


# ---- numbers and layouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = network(1).to(dtype).state_dict()
    torch.save(saved, tmp_path / "w.pth")
    check_loads(tmp_path / "w.pth", saved)


def test_channels_last_weights_load_into_either_layout(tmp_path: Path) -> None:
    module = network(1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stub lacks it
    torch.save(module.state_dict(), tmp_path / "w.pth")
    check_loads(tmp_path / "w.pth", module.state_dict())
    save_tensors(tmp_path / "w.safetensors", network(2).state_dict())
    load_weights(module, tmp_path / "w.safetensors")
    name = "body.0.weight"
    assert torch.equal(module.state_dict()[name], network(2).state_dict()[name])


def test_integers_in_the_place_of_weights_are_refused(tmp_path: Path) -> None:
    saved = {name: value.to(torch.int8) for name, value in network(1).state_dict().items()}
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"no floating-point numbers: body\.0\.weight in torch\.int8"):
        load_weights(network(), tmp_path / "w.pth")


def test_weights_of_a_wider_network_are_refused_behind_a_prefix_too(tmp_path: Path) -> None:
    torch.save({"ema": behind("module.", network(1, channels=8).state_dict())}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"other shapes: body\.0\.weight \(8, 3, 3, 3\) not \(4, 3, 3, 3\)"):
        load_weights(network(), tmp_path / "w.pth")


ODD_TENSORS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "float8": (lambda value: value.to(torch.float8_e4m3fn), r"a tensor of torch\.float8_e4m3fn"),
    "complex": (lambda value: value.to(torch.complex64), r"a tensor of torch\.complex64"),
    "meta": (lambda value: value.to("meta"), r"a tensor without values \(on PyTorch.s meta device\)"),
    "sparse": (lambda value: value.to_sparse(), r"a tensor of the layout torch\.sparse_coo"),
    "compressed": (lambda value: value.flatten(1).to_sparse_csr(), r"a tensor of the layout torch\.sparse_csr"),
    "quantised": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), r"a tensor of torch\.qint8"),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_a_tensor_that_is_no_plain_array_is_named(tmp_path: Path, kind: str) -> None:
    change, words = ODD_TENSORS[kind]
    saved = network(1).state_dict()
    saved["body.0.weight"] = change(saved["body.0.weight"])
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"'body\.0\.weight' is {words}, expected a plain tensor"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.complex64])
def test_odd_formats_of_safetensors_are_named(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = network(1).state_dict()
    saved["body.0.weight"] = saved["body.0.weight"].to(dtype)
    save_tensors(tmp_path / "w.safetensors", saved)
    with pytest.raises(ModelError, match=rf"'body\.0\.weight' is a tensor of {dtype}, expected a plain tensor"):
        load_weights(network(), tmp_path / "w.safetensors")


def test_containers_that_hold_themselves_come_to_an_end(tmp_path: Path) -> None:
    saved: dict[Any, Any] = {"state_dict": network(1).state_dict(), 10**300: 1, None: 2}
    saved["self"] = saved["again"] = saved
    module = network(1)
    module.inner = module
    saved["module"] = module
    for number in range(40):
        saved = {"left": saved, "right": saved, "number": number}
    torch.save({"model": network(2).state_dict(), "more": saved}, tmp_path / "w.pth")
    check_loads(tmp_path / "w.pth", network(2).state_dict())


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * (100 << 20))
    with pytest.raises(ArtefactError, match="are compressed"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}, "not a whole safetensors file|a tensor of"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "not a whole safetensors file"),
        ({"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}, "not a whole safetensors file"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 2**63]}, "not a whole safetensors file"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "not a whole safetensors file"),
        ({"dtype": "X", "shape": [1], "data_offsets": [0, 4]}, "not a whole safetensors file"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    header = json.dumps({"body.0.weight": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises((ArtefactError, ModelError), match=words):
        load_weights(network(), tmp_path / "w.safetensors")


# ---- files that are something else ----------------------------------------------------------------------------------


def test_safetensors_under_another_name_load(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    save_tensors(tmp_path / "w.bin", saved)
    assert check_loads(tmp_path / "w.bin", saved) == []


def test_a_part_of_several_files_is_called_one(tmp_path: Path) -> None:
    saved = network(1).state_dict()
    name = "model-00001-of-00002.safetensors"
    save_tensors(tmp_path / name, {name: saved[name] for name in saved if name.startswith("body")})
    with pytest.raises(ModelError, match=r"are part 1 of 2 and lack 2 tensors \(head\.weight, head\.bias\)"):
        load_weights(network(), tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ArtefactError, match="index of several files"):
        load_weights(network(), tmp_path / "model.safetensors.index.json")


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(network(1)), path)


def arrays(path: Path) -> None:
    plain({"w": np.ones(3)}, path, 4)


def tar(path: Path) -> None:
    import tarfile

    with tarfile.open(path, "w") as archive:
        archive.add(__file__)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), "are a folder"),
    "script": (scripted, "TorchScript archive"),
    "tar": (tar, "tar archive"),
    "zip": (archive, "unreadable"),
    "arrays": (arrays, "no state dict of tensors"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>not found</html>"), "are a web page"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "Git LFS"),
    "empty": (lambda path: path.write_bytes(b""), "unreadable"),
    "numbers": (lambda path: torch.save({"epoch": 3, "loss": 0.1}, path), "no state dict of tensors"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_refused_by_their_kind(tmp_path: Path, kind: str) -> None:
    make, sentence = OTHERS[kind]
    make(tmp_path / "w.pth")
    with pytest.raises(ArtefactError, match=sentence):
        load_weights(network(), tmp_path / "w.pth")
