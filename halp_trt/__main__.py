"""``python -m halp_trt`` and ``halp-trt``."""

from __future__ import annotations

import signal
import sys

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


if __name__ == "__main__":
    main()
