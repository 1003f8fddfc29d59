"""A core without other work: waited for before a verb measures, and asked for by its verdict."""

from __future__ import annotations

import click

from halp_trt.cli.kinds import Number
from halp_trt.cli.output import EXIT_CANNOT_TELL, EXIT_CHECK_FAILED
from halp_trt.cli.streams import say
from halp_trt.errors import NotQuietError
from halp_trt.specs import DeviceVerification, Verification
from halp_trt.texts import sentence

__all__ = ["await_quiet", "exit_code", "quiet_option"]

_MOST_SECONDS = 86_400.0
"""A day."""

quiet_option = click.option(
    "--wait-for-quiet",
    "quiet_within",
    type=Number(0, _MOST_SECONDS),
    metavar="SECONDS",
    help="Wait so long for a core that no other work has before measuring; exit code 3 if there is none.",
)


def await_quiet(seconds: float | None) -> None:
    """Returns when some core of this machine is quiet; at once where that was not asked for.

    Raises:
        NotQuietError: none was within these seconds.
    """
    from halp_trt.timing import wait_for_quiet

    if seconds is None:
        return
    core = wait_for_quiet(seconds)
    if core is not None and not core.is_quiet:
        had = f"other work has {100 * core.taken_fraction:.0f} % of the quietest" if core.is_ours else "other runs time"
        raise NotQuietError(
            f"no core was quiet within {seconds:g} s, {had}; end what runs beside this, or wait longer with "
            "--wait-for-quiet"
        )


def exit_code(verification: Verification | DeviceVerification, quiet_within: float | None) -> int:
    """The exit code of a verdict; where a quiet core was asked for, a doubted latency makes it "cannot tell"."""
    if quiet_within is not None and isinstance(verification, Verification) and verification.doubt:
        say(sentence(f"error: cannot tell: {verification.doubt}; run it again, on a quiet machine"), err=True)
        return EXIT_CANNOT_TELL
    return 0 if verification.passed else EXIT_CHECK_FAILED
