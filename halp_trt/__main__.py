"""``python -m halp_trt`` and ``halp-trt``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import halp_trt

__all__ = ["main"]

_STOPPED = "error: stopped by Ctrl-C; nothing was half-written, run the same command again\n"
"""Said where the command line itself was still being imported."""
_EXIT_USAGE = 2
"""Exit code of whatever did not come to its end."""


def main() -> None:
    """The entry point of the command line, which is imported here so that Ctrl-C may fall into that, too."""
    try:
        from halp_trt.cli import verbs

        verbs()
    except KeyboardInterrupt:
        sys.stderr.write(_STOPPED)
        exec("")  # see halp_trt.cli.interrupts: else Python would end by the signal after all
        sys.exit(_EXIT_USAGE)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done: Python's own end is not interrupted


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
