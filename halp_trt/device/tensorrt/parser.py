"""Polygraphy, which parses models and builds engines, over whichever of the two libraries a build is for.

Polygraphy takes one library for the whole process: ``POLYGRAPHY_USE_TENSORRT_RTX`` decides when it is first imported.
Here it is given the library of each build instead, so that nobody has to set the variable, both libraries are at work
in one process, and whoever else uses Polygraphy there finds it as they left it. It also gets a logger that keeps
errors: its own prints them on the standard output, where results go.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from polygraphy.backend.tensorrt_rtx import create_config_rtx
from polygraphy.backend.trt import create_config, create_network, engine_bytes_from_network, network_from_onnx_bytes
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from halp_trt.device.faults import BuildError
from halp_trt.device.tensorrt.bindings import Library, find

__all__ = ["PolygraphyException", "configure", "engine_bytes", "network_from_onnx", "polygraphy_on"]

_PLACES = (
    ("polygraphy.config", "USE_TENSORRT_RTX"),
    ("polygraphy.backend.trt.util", "TRT_LOGGER"),
    *(
        (f"polygraphy.backend.{name}", "trt")
        for name in ("tensorrt_rtx.config", "trt.config", "trt.loader", "trt.util")
    ),
)
"""Modules and names in which Polygraphy keeps its choice, its logger, and the library: all that building goes
through."""
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def polygraphy_on(library: Library, log: Any) -> Iterator[None]:
    """Makes Polygraphy use a library and a logger while the context is open; builds of other threads wait.

    Args:
        library: the library that parses and builds.
        log: collects the library's errors.
    """
    wanted = {"USE_TENSORRT_RTX": library.is_rtx, "TRT_LOGGER": log, "trt": library.module}
    places = [(import_module(module), name) for module, name in _PLACES]  # the package hides some behind their names
    with _ONE_AT_A_TIME, G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
        found = [(module, name, getattr(module, name)) for module, name in places]
        try:
            for module, name in places:
                setattr(module, name, wanted[name])
            yield
        finally:
            for module, name, value in found:
                setattr(module, name, value)


def network_from_onnx(library: Library, model: bytes, log: Any) -> tuple[Any, Any]:
    """Builder and network of an ONNX model, strongly typed where the version can.

    Raises:
        BuildError: the parser refuses it; the sentence names the node where it is known.
    """
    try:
        builder, network, _ = network_from_onnx_bytes(model, strongly_typed=library.is_strongly_typed)
    except PolygraphyException as error:
        raise BuildError(_parser_sentence(library, model, log)) from error
    if not network.num_outputs:  # nothing at all is a sound protobuf message
        raise BuildError(_parser_sentence(library, model, log))
    return builder, network


def configure(library: Library, builder: Any, network: Any, *, tf32: bool, settings: Mapping[str, Any]) -> Any:
    """The builder's configuration, by the arguments of Polygraphy's ``CreateConfig``, or ``CreateConfigRTX``.

    Raises:
        BuildError: this version lacks something that is asked for.
    """
    try:
        if not library.is_rtx:
            return create_config(builder, network, tf32=tf32, **settings)
        config = create_config_rtx(builder, network, **settings)
    except PolygraphyException as error:
        reason = " ".join(str(error).split())
        raise BuildError(f"{library} cannot be set up for this build: {reason}; leave that out") from error
    if not tf32:  # Polygraphy clears it for TensorRT alone
        config.clear_flag(library.module.BuilderFlag.TF32)
    return config


def engine_bytes(builder: Any, network: Any, config: Any) -> bytes:
    """The plan's bytes.

    Raises:
        PolygraphyException: the builder refuses the network; its logger knows why.
    """
    with _stdout_to_stderr():
        return bytes(engine_bytes_from_network((builder, network), config))


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Sends warnings that TensorRT's compiler prints on the standard output, where a verb's JSON goes, to stderr."""
    try:
        kept = os.dup(1)
    except OSError:  # services close it
        yield
        return
    if sys.stdout:
        sys.stdout.flush()
    try:
        os.dup2(2, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _parser_sentence(library: Library, model: bytes, log: Any) -> str:
    """The parser's reason to refuse a model, which is parsed again for it: Polygraphy keeps no errors."""
    _, network = create_network(strongly_typed=library.is_strongly_typed)
    parser = library.module.OnnxParser(network, log)
    parser.parse(model)
    if not parser.num_errors:
        return f"{library.title} finds no network in these bytes; export the model again"
    error = parser.get_error(0)
    reason = f"{error.code().name}: {' '.join(error.desc().split())[:200]}"
    if error.node() < 0:
        return f"{library.title} cannot read the model ({reason}); change its inputs and outputs, or export it again"
    node, operator = f"number {error.node()}", ""
    if find(library.module, "ParserError.node_name") is not None:  # 8.5 knows the number alone
        node, operator = error.node_name() or node, f"{error.node_operator()}; "
    return (
        f"{library.title} refuses node {node} ({operator}{reason}); replace that operator or build with another runtime"
    )
