"""A plain folder of pictures prunes, teaches, calibrates and verifies, and is never scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.specs import Verification
from halp_trt.store import load
from tests.cli.test_bad_input import QUICK, _flat_pictures
from tests.cli.tiny import TINY

INT8 = ("--runtime", "onnxruntime", "--precision", "int8")


@pytest.mark.slow
def test_pictures_without_labels_go_all_the_way(halp_trt, folder: Path) -> None:
    _flat_pictures(folder)
    data = ("--data", "pictures:flat")
    pruned = halp_trt("prune", *TINY, *QUICK, *data, "--distillation", 1, "--budget", "70%")
    assert pruned.exit_code == 0, pruned.stderr
    deployed = halp_trt("deploy", "run", *INT8)
    assert deployed.exit_code == 0, deployed.stderr
    judged = halp_trt("verify", "run", *INT8, *TINY[:2], "--seconds", 0.01, "--tolerance", 1000000)
    assert judged.exit_code in (0, 1), judged.stderr  # whether it is faster is the machine's business
    found = load(folder / "run" / "verification.json")
    assert isinstance(found, Verification)
    assert (found.dense.score, found.pruned.score) == (None, None)
    refused = halp_trt("verify", "run", *INT8, *TINY[:2], "--max-drop", 1)
    assert refused.exit_code == 2
    assert "--max-drop compares scores, and pictures:flat has no labels" in refused.stderr


def test_a_dense_network_is_not_trained_on_it(halp_trt, folder: Path) -> None:
    _flat_pictures(folder)
    refused = halp_trt("run", *TINY, "--data", "pictures:flat", "--distillation", 1)
    assert refused.exit_code == 2
    assert "error: pictures:flat has no labels to train the dense network on; name its --weights" in refused.stderr
