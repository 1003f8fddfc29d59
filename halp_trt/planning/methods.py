"""The pruning methods by name; a user's own is registered by assignment: ``METHODS["mine"] = Method(step=...)``."""

from __future__ import annotations

from halp_trt.errors import UsageError
from halp_trt.planning.chunks import channel_steps
from halp_trt.planning.halp import halp_step
from halp_trt.planning.method import Method
from halp_trt.planning.network import joint_blocks_step, joint_step
from halp_trt.planning.uniform import uniform_step
from halp_trt.rows import check_call, check_members, load_row

__all__ = ["DEFAULT_METHOD", "METHODS", "check_keeps_resources", "get_method"]

METHODS: dict[str, Method | str] = {
    "halp": Method(step=halp_step, chunks=channel_steps),  # latency-aware grouping is HALP's
    "joint": Method(step=joint_step, keeps_resources=True, rivals=("joint-blocks",)),
    "joint-blocks": Method(step=joint_blocks_step, removes_blocks=True, keeps_resources=True, rivals=("joint",)),
    "uniform": Method(step=uniform_step),
}
"""The methods by name, each a value or its import path ``package.module:name``."""

DEFAULT_METHOD = "joint-blocks"
"""The method with the highest accuracy at every budget of the duel (docs/duel.md)."""


def get_method(method: str | Method) -> Method:
    """The method of a name; a :class:`Method` is returned as it is.

    Raises:
        UsageError: no method has this name, or its row is no method.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise UsageError(f"method {method!r} is none of {sorted(METHODS)}; name one of them, or register it first")
    row: Method = load_row(METHODS[method])
    place = f"METHODS[{method!r}]"
    check_members(row, Method, place)
    asked = dict.fromkeys(("budget_us", "steps", "least", *(["resources"] if row.keeps_resources else [])))
    check_call(row.step, f"{place}.step", "current", "saliency", "lookup", **asked)
    check_call(row.chunks, f"{place}.chunks", "graph", "lookup", grid_step=None)
    return row


def check_keeps_resources(method: Method) -> None:
    """Refuses a method that knows no limits beside latency, where there are some.

    Raises:
        UsageError: it is one; names those that know them.
    """
    if not method.keeps_resources:
        able = [name for name in METHODS if get_method(name).keeps_resources]
        raise UsageError(
            f"this method keeps no limits on other resources than latency; choose one of {', '.join(able)}, or leave "
            f"the limits out"
        )
