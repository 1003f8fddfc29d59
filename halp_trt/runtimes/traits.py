"""The traits in which runtimes differ, as values: code for several runtimes asks for a trait, never for a name."""

from __future__ import annotations

from dataclasses import dataclass

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.specs import Target

__all__ = ["NO_CLOCK", "Traits"]

NO_CLOCK = "{title} prices single layers and has no clock for whole networks; choose a real runtime"
"""Error sentence of a runtime without a clock for whole networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The properties of a runtime that are the same on every machine. The defaults are those of a plain interpreter.

    Attributes:
        builds: number formats of its engines; a machine, or a version of it, may have fewer.
        measures: number formats in which it measures single layers. In others a lone layer would be charged for
            conversions that the network has once.
        needs_gpu: whether its engines run on NVIDIA GPUs alone.
        can_use_gpu: whether its engines run on an NVIDIA GPU where there is one.
        is_ahead_of_time: whether an engine is compiled for a device and runs there as it is: its runtime is a
            :class:`halp_trt.runtimes.Compiler`. Others keep the ONNX model and compile when they load it.
        builds_anywhere: whether it also builds for GPUs that are not in this machine.
        times_networks: whether its sessions have a clock.
        has_typed_probes: whether a probe holds the layer alone, in the number formats that it has inside a network;
            otherwise it is in fp32, between markers and a consumer.
        has_one_speed: whether the rows of a table are brought to one speed of the machine, by their reference.
        quantiser_style: style in which 8-bit networks are quantised for it: a key of
            ``halp_trt.graphs.quantize.STYLES``.
        typed_since: major version since which networks are strongly typed and the unquantised rest of an 8-bit network
            is fp16; None if it is always fp32.
        old_opset: the newest ONNX opset that its versions before ``typed_since`` read rightly.
        served_by: the class that drives it on a device elsewhere, ``package.module:name`` of a
            :class:`halp_trt.device.agent.works.Work`.
        has_nms: whether its engines may hold ONNX's ``NonMaxSuppression``.
    """

    builds: tuple[str, ...] = ("fp32",)
    measures: tuple[str, ...] = ("fp32",)
    needs_gpu: bool = False
    can_use_gpu: bool = False
    is_ahead_of_time: bool = False
    builds_anywhere: bool = False
    times_networks: bool = True
    has_typed_probes: bool = False
    has_one_speed: bool = False
    quantiser_style: str = "asymmetric"
    typed_since: int | None = None
    old_opset: int | None = None
    served_by: str = "halp_trt.runtimes.served:RuntimeWork"
    has_nms: bool = True

    def parser_opset(self, version: str) -> int | None:
        """The opset that a version's parser needs; None where it reads the exported one."""
        return self.old_opset if self._is_old(version) else None

    def has_half_rest(self, version: str) -> bool:
        """True if the unquantised rest of an 8-bit network is fp16 in a version."""
        return self.typed_since is not None and not self._is_old(version)

    def check_measures(self, target: Target) -> None:
        """Refuses to measure single layers for a target.

        Raises:
            UsageError: the runtime measures none in its precision.
        """
        if target.precision not in self.measures:
            first = self.measures[0]
            raise UsageError(
                f"{target.runtime} measures layers in {', '.join(self.measures)}, not {target.precision}: prune with "
                f"--precision {first}, then run deploy and verify with --precision {target.precision}"
            )

    def check_has_nms(self, title: str) -> None:
        """Refuses to build engines that suppress boxes.

        Raises:
            UsageError: the runtime, called by its title, has no kernel for that.
        """
        if not self.has_nms:
            raise UsageError(
                f"{title} has no NonMaxSuppression; leave suppression to the host with --nms host, or deploy with "
                f"--runtime onnxruntime"
            )

    def check_times_networks(self, title: str) -> None:
        """Refuses to time whole networks.

        Raises:
            RuntimeUnavailableError: the runtime, called by its title, has no clock.
        """
        if not self.times_networks:
            raise RuntimeUnavailableError(NO_CLOCK.format(title=title))

    def _is_old(self, version: str) -> bool:
        major = version.partition(".")[0]
        return self.typed_since is not None and major.isdecimal() and int(major) < self.typed_since
