"""The runtimes by name with their traits, and the choice of one; no runtime's package is imported for that."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from halp_trt.device.conditions import has_nvidia_gpu
from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.rows import check_call, check_members, load_row
from halp_trt.runtimes.protocol import Runtime
from halp_trt.runtimes.traits import Traits
from halp_trt.specs import PRECISIONS

__all__ = [
    "RUNTIMES",
    "Choice",
    "Entry",
    "available_runtimes",
    "choose_runtime",
    "default_runtime",
    "get_runtime",
    "has_nvidia_gpu",
    "traits_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of ``RUNTIMES``: the factory of a runtime, and the packages it needs.

    Attributes:
        make: its factory, or the factory's ``package.module:name``; that module is imported when the runtime is asked
            for.
        title: its name for people; empty if its key in ``RUNTIMES`` is that name.
        packages: third-party packages that must be installed.
        extra: extras of halp-trt that bring them.
        beside: further packages that it needs, each brought by an extra of its own name.
        preference: where no runtime is named, the available one of the highest preference is taken; 0 for never.
        traits: its properties that are the same on every machine.
    """

    make: Callable[[], Runtime] | str
    title: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""
    beside: tuple[str, ...] = ()
    preference: int = 0
    traits: Traits = field(default_factory=Traits)


_TORCH = Traits(
    builds=("fp32", "tf32", "fp16", "bf16"),
    measures=("fp32", "tf32", "fp16", "bf16"),
    can_use_gpu=True,
    has_nms=False,
)
_TENSORRT = Traits(
    builds=PRECISIONS,
    measures=PRECISIONS,
    needs_gpu=True,
    can_use_gpu=True,
    is_ahead_of_time=True,
    has_typed_probes=True,
    quantiser_style="symmetric",
)

RUNTIMES: dict[str, Entry] = {
    "onnxruntime": Entry(
        make="halp_trt.runtimes.ort.runtime:OnnxRuntime",
        title="ONNX Runtime",
        packages=("onnxruntime", "onnx"),
        extra="onnxruntime",
        preference=1,
        traits=Traits(builds=("fp32", "fp16", "int8"), has_one_speed=True),
    ),
    "openvino": Entry(
        make="halp_trt.runtimes.openvino.runtime:OpenVino",
        title="OpenVINO",
        packages=("openvino", "onnx"),
        extra="openvino",
        traits=Traits(builds=("fp32", "fp16", "int8")),
    ),
    "tensorrt": Entry(
        make="halp_trt.runtimes.tensorrt.libraries:make_classic",
        title="TensorRT",
        packages=("tensorrt",),
        extra="tensorrt",
        beside=("polygraphy",),
        preference=2,
        traits=replace(_TENSORRT, typed_since=10, old_opset=17, served_by="halp_trt.device.tensorrt.work:PlanWork"),
    ),
    "tensorrt-rtx": Entry(
        make="halp_trt.runtimes.tensorrt.libraries:make_rtx",
        title="TensorRT for RTX",
        packages=("tensorrt_rtx",),
        extra="tensorrt-rtx",
        beside=("polygraphy",),
        traits=replace(_TENSORRT, typed_since=1, builds_anywhere=True, has_nms=False),
    ),
    "torch": Entry(
        make="halp_trt.runtimes.pytorch.runtime:make_eager",
        title="PyTorch",
        packages=("torch", "onnx"),
        extra="torch,onnx",
        traits=_TORCH,
    ),
    "torch-nchw": Entry(
        make="halp_trt.runtimes.pytorch.runtime:make_nchw",
        title="PyTorch, channels first",
        packages=("torch", "onnx"),
        extra="torch,onnx",
        traits=_TORCH,
    ),
    "torch-compile": Entry(
        make="halp_trt.runtimes.pytorch.runtime:make_compiled",
        title="PyTorch, compiled",
        packages=("torch", "onnx"),
        extra="torch,onnx",
        traits=_TORCH,
    ),
    "synthetic": Entry(
        make="halp_trt.runtimes.synthetic:Synthetic",
        title="the synthetic device",
        packages=("onnx",),
        extra="onnx",
        traits=Traits(times_networks=False),
    ),
}
"""The runtimes by name. A runtime of your own is one more row: ``RUNTIMES["mine"] = Entry(make=Mine)``."""


def get_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UsageError: there is none, or its row makes none.
        RuntimeUnavailableError: its package is not installed.
    """
    if name not in RUNTIMES:
        raise UsageError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    entry, place = RUNTIMES[name], f"RUNTIMES[{name!r}]"
    check_members(entry, Entry, place)
    try:
        if absent := [package for package in entry.packages if find_spec(package) is None]:
            raise ModuleNotFoundError(f"No module named {absent[0]!r}", name=absent[0])
        make: Callable[[], Runtime] = load_row(entry.make)
        check_call(make, f"{place}.make")
        runtime = make()
    except (ImportError, OSError) as error:  # OSError: bindings whose libraries are missing or of another CUDA
        needed, extra = entry.packages, entry.extra
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        if missing in entry.beside:  # the runtime itself may be the system's
            needed, extra = (missing,), missing
        raise RuntimeUnavailableError(
            f"runtime {name} needs {' and '.join(needed)} ({error}); run: pip install 'halp-trt[{extra}]'"
        ) from error
    check_members(runtime, Runtime, f"what {place}.make makes")
    return runtime


def traits_of(name: str) -> Traits:
    """The traits of the runtime of that name; the defaults for an unknown one, which a file may name."""
    return RUNTIMES[name].traits if name in RUNTIMES else Traits()


def available_runtimes() -> tuple[str, ...]:
    """The runtimes whose packages are installed; none of them is imported to find out."""
    return tuple(name for name, entry in RUNTIMES.items() if all(map(find_spec, entry.packages)))


def default_runtime() -> str:
    """The runtime to take when none is named: TensorRT where it is installed beside a GPU, else ONNX Runtime."""
    return choose_runtime().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A runtime that was chosen, and why."""

    name: str
    reason: str


def choose_runtime(
    available: Collection[str] | None = None, root: Path = Path("/"), *, has_gpu: bool | None = None
) -> Choice:
    """The runtime to take when none is named, with the reason in words; no runtime is imported for that.

    Args:
        available: the installed runtimes; by default those of this machine.
        root: root of the file system that holds the device files.
        has_gpu: whether there is an NVIDIA GPU; by default as the device files say.
    """
    available = available_runtimes() if available is None else available
    has_gpu = has_nvidia_gpu(root) if has_gpu is None else has_gpu
    preferred = {name: entry.preference for name, entry in RUNTIMES.items() if entry.preference}
    ranked = sorted(preferred, key=lambda name: -preferred[name])
    fitting = [name for name in ranked if has_gpu or not traits_of(name).needs_gpu]
    chosen = next((name for name in fitting if name in available), fitting[-1])
    return Choice(name=chosen, reason=_reason(ranked[0], chosen, is_available=ranked[0] in available, has_gpu=has_gpu))


def _reason(best: str, chosen: str, *, is_available: bool, has_gpu: bool) -> str:
    """The reason for a choice in words: the fate of the most preferred runtime."""
    title, needs_gpu = RUNTIMES[best].title or best, traits_of(best).needs_gpu
    if not needs_gpu:
        return f"{title} is installed" if chosen == best else f"{title} is not installed"
    if chosen == best:
        return f"{title} is installed and there is an NVIDIA GPU"
    if is_available:
        return f"{title} is installed, but there is no NVIDIA GPU"
    if has_gpu:
        return f"there is an NVIDIA GPU, but {title} is not installed"
    return f"neither {title} nor an NVIDIA GPU is here"
