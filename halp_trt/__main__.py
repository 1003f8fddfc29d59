"""``python -m halp_trt`` and ``halp-trt``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import halp_trt

__all__ = ["began", "main"]

_STOPPED = "error: stopped by Ctrl-C; nothing was half-written, run the same command again\n"
"""Said where the command line itself was still being imported."""
_EXIT_USAGE = 2
"""Exit code of whatever did not come to its end."""


def main() -> None:
    """The entry point of the command line, which is imported here so that Ctrl-C may fall into that, too.

    Verbs find the moment at which the process began, of ``time.monotonic``, as click's object.
    """
    try:
        from halp_trt.cli import verbs

        verbs(obj=began())
    except KeyboardInterrupt:
        sys.stderr.write(_STOPPED)
        exec("")  # see halp_trt.cli.interrupts: else Python would end by the signal after all
        sys.exit(_EXIT_USAGE)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done: Python's own end is not interrupted


def began() -> float:
    """The moment at which this process began, of ``time.monotonic``; where the system does not tell, this moment."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, IndexError, OSError, ValueError):
        age = 0.0
    return time.monotonic() - max(0.0, age)


def _leave_out_working_folder() -> None:
    """Takes the working folder, which ``-m`` puts first, off the import path, unless the package itself lies in it.

    Packages are not looked for among the files that are worked on: some may be other people's.
    """
    here = os.getcwd()
    is_first = sys.path[:1] in ([here], [""]) and not getattr(sys.flags, "safe_path", False)
    if is_first and Path(halp_trt.__file__).resolve().parents[1] != Path(here).resolve():
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_working_folder()
    main()
