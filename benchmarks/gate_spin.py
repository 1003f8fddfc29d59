"""ONNX Runtime with a spin of known length after each run: a slowdown whose true ratio is known by construction.

The share stands in the model's metadata, so that engines differ in nothing else and any process that loads one finds
it. The spin lasts that share of the very run before it: the ratio holds while the machine's speed changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import onnx

from halp_trt.runtimes import RUNTIMES, Array, Entry, Session, Traits
from halp_trt.runtimes.ort.runtime import OnnxRuntime

NAME = "onnxruntime-spin"
KEY = "spin_share"


class SpinSession:
    """A session whose bound run spins a share of its own time after each execution."""

    def __init__(self, session: Session, share: float) -> None:
        self._session, self._share = session, share
        self.input_shapes, self.output_names = session.input_shapes, session.output_names

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs."""
        return self._session.run(inputs)

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution and the spin after it."""
        run, share = self._session.bind(inputs), self._share

        def run_and_spin() -> None:
            started = perf_counter()
            run()
            ended = perf_counter()
            until = ended + share * (ended - started)
            while perf_counter() < until:
                pass

        return run_and_spin

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """The nodes' own times, without the spin."""
        return self._session.profile(inputs, num_runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpinRuntime(OnnxRuntime):
    """ONNX Runtime whose engines may spin."""

    name: str = NAME

    def load(self, engine: bytes, target: Any) -> Any:
        """A session that spins the share that the engine's metadata names."""
        session = OnnxRuntime.load(self, engine, target)
        metadata = {entry.key: entry.value for entry in onnx.load_from_string(engine).metadata_props}
        return SpinSession(session, float(metadata.get(KEY, 0.0)))


def with_spin(model: bytes, share: float) -> bytes:
    """A model whose runs last longer by a share."""
    changed = onnx.load_from_string(model)
    onnx.helper.set_model_props(changed, {KEY: repr(share)})
    return bytes(changed.SerializeToString())


def register() -> None:
    """Adds the runtime's row, by a path that fresh processes can import."""
    traits = Traits(builds=("fp32",), has_one_speed=True)
    RUNTIMES.setdefault(NAME, Entry(make="gate_spin:SpinRuntime", packages=("onnxruntime", "onnx"), traits=traits))
