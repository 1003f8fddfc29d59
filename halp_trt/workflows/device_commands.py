"""Commands for a device with TensorRT alone: typed networks of a run, and scripts of trtexec beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

from halp_trt.errors import BuildError, UsageError
from halp_trt.graphs.precision import TypedModel, compute_types
from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import RUNTIMES, Array
from halp_trt.runtimes.tensorrt.trtexec_commands import DIALECTS, Dialect, EngineOrder, script
from halp_trt.specs import DeviceCommands, Target, TimingProtocol
from halp_trt.store import check_writable, hold, save, sha256_bytes, sha256_file, write_bytes, write_text
from halp_trt.workflows.deploy import ROLES, DeployOptions, folded
from halp_trt.workflows.folder import RunFolder, slug
from halp_trt.workflows.inputs import calibration_inputs, pictures_of
from halp_trt.workflows.parents import check_plan
from halp_trt.workflows.precision import Examples, preparer
from halp_trt.workflows.settings import Settings

__all__ = ["COMMANDS", "WrittenCommands", "tensorrt_name", "write_commands"]

COMMANDS = "commands.json"
"""Name of the record beside the scripts."""
_EDGE_FORMATS: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}
"""trtexec's names of number formats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCommands:
    """The commands that were written.

    Attributes:
        folder: the folder to copy to the device.
        record: what lies in it.
        left_out: versions of TensorRT without a script, and the reason of each.
    """

    folder: Path
    record: DeviceCommands
    left_out: Mapping[str, str]


def tensorrt_name() -> str:
    """The key in ``RUNTIMES`` of the TensorRT that builds on the device it runs on, as trtexec does."""
    return next(
        name for name, entry in RUNTIMES.items() if entry.traits.is_ahead_of_time and not entry.traits.builds_anywhere
    )


def write_commands(run: RunFolder, settings: Settings, order: DeployOptions) -> WrittenCommands:
    """Writes both networks of a run in the types of a precision, and for each TensorRT a script that builds and times.

    Raises:
        ArtefactError: the run has no plan or models, one is not what the plan names, or a file cannot be written.
        GraphMismatchError: the plan is not the models'.
        UsageError: no TensorRT has what is asked for, or there is nothing to calibrate on.
        InUseError: another process has the run, or writes the folder.
    """
    place = settings.place
    folder = order.engines / slug(run.path.resolve().name, "trtexec", place.precision, f"b{place.batch}")
    with hold(run.path), hold(folder / COMMANDS):
        plan = run.read_plan()
        check_plan(run.plan, plan)
        check_writable(folder / COMMANDS)
        models = {"dense": folded(run, plan), "pruned": read_model(run.pruned_model)}

        @cache
        def examples() -> list[dict[str, Array]]:
            return calibration_inputs(models["dense"], pictures_of(settings.data, run))

        scripts, networks, left_out = {}, {}, {}
        for dialect in DIALECTS:
            try:
                text, made = _commands(dialect, models, settings, examples, order.keep)
            except (BuildError, UsageError) as error:
                left_out[dialect.version] = str(error)
                continue
            for name, data in made.items():
                write_bytes(folder / name, data)
                networks[name] = sha256_bytes(data)
            scripts[dialect.version] = f"trtexec-{dialect.version}.sh"
            write_text(folder / scripts[dialect.version], text)
        if not scripts:
            raise UsageError(next(iter(left_out.values())))
        parents = {path.name: sha256_file(path) for path in (run.dense_model, run.pruned_model, run.plan)}
        record = DeviceCommands(
            precision=place.precision, batch_size=place.batch, scripts=scripts, networks=networks, parents=parents
        )
        save(record, folder / COMMANDS)
    return WrittenCommands(folder=folder, record=record, left_out=left_out)


def _commands(
    dialect: Dialect,
    models: Mapping[str, onnx.ModelProto],
    settings: Settings,
    examples: Examples,
    keep: Collection[str],
) -> tuple[str, dict[str, bytes]]:
    """The script of one TensorRT, and the networks that it builds from, by file."""
    place = settings.place
    target = Target(
        device="",
        runtime=tensorrt_name(),
        runtime_version=dialect.version,
        precision=place.precision,
        batch_size=place.batch,
        protocol=TimingProtocol(method="trtexec"),
    )
    prepare = preparer(target, examples, keep)
    typed = {role: prepare(models[role]) for role in ROLES}
    is_old = dialect.typing is None
    files = {role: f"{role}-{dialect.version}.onnx" if is_old else f"{role}.onnx" for role in ROLES}
    text = script(
        dialect,
        [_order(role, files[role], typed[role], is_old) for role in ROLES],
        precision=place.precision,
        level=place.optimization_level,
        results=f"results-{dialect.version}",
        record=COMMANDS,
    )
    return text, {files[role]: typed[role].model.SerializeToString() for role in ROLES}


def _order(role: str, file: str, typed: TypedModel, is_old: bool) -> EngineOrder:
    graph = typed.model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs, outputs = ([one for one in edges if one.name not in weights] for edges in (graph.input, graph.output))
    halves = (node for node, kind in compute_types(typed.model).items() if kind == "fp16")
    return EngineOrder(
        role=role,
        network=file,
        inputs=tuple(map(_edge_format, inputs)),
        outputs=tuple(map(_edge_format, outputs)),
        pinned=tuple(halves) if is_old else (),
    )


def _edge_format(edge: onnx.ValueInfoProto) -> str:
    kind = edge.type.tensor_type.elem_type
    if kind not in _EDGE_FORMATS:
        raise UsageError(
            f"trtexec has no word for the number format of {edge.name!r} ({kind}); export it in another one"
        )
    return _EDGE_FORMATS[kind]
