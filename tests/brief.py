"""For tests of what is not about time."""

from __future__ import annotations

import pytest

from halp_trt.workflows import stopwatch


def briefly_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are timed in a single short part while they are pruned, however well that tells their ratio."""
    monkeypatch.setattr(stopwatch, "_MOST_PARTS", 1)
    monkeypatch.setattr(stopwatch, "_SECONDS_A_PART", 0.1)
