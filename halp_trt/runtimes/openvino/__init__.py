"""OpenVINO, without the sender of its usage statistics.

The sender starts a process and asks the network whenever OpenVINO is imported; a Ctrl-C in between can leave the
program waiting for it for ever. OpenVINO has a stub for where the sender is not installed, and takes it here.
"""

import contextlib
import sys

_SENDER = "openvino_telemetry"

if _SENDER not in sys.modules:
    sys.modules[_SENDER] = None  # type: ignore[assignment]  # whoever imports it is told that it is not there
    try:
        with contextlib.suppress(ImportError):
            import openvino  # noqa: F401
    finally:
        del sys.modules[_SENDER]
