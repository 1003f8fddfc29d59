"""``python -m halp_trt``: the same as ``halp-trt``."""

import os
import sys
from pathlib import Path

import halp_trt


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
    from halp_trt.cli import main

    main()
