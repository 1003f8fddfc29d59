"""A whole run over ssh: a network of this machine, pruned, built, timed and judged on a device with Python 3.8."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from halp_trt.cli import verbs
from tests.cli.tiny import TINY
from tests.old_python import FAKE

ROOT = Path(__file__).resolve().parents[2]
XAVIER = ("--device", "xavier", "--runtime", "tensorrt")
BRIEF = ("--epochs", "0", "--pruning-steps", "2", "--minibatches", "1", "--timing-seconds", "0.2", "--width-step", "8")


@pytest.mark.nightly
def test_from_hello_to_a_verdict(
    sshd: str, old_python: str, libcudart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "tests/cli/tiny.py", tmp_path)
    (tmp_path / "faults").mkdir()
    variables = {"LD_LIBRARY_PATH": libcudart, "PYTHONPATH": FAKE, "FAKE_FAULTS": tmp_path / "faults"}
    python = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), old_python])
    place = {"ssh": sshd, "python": python, "folder": str(tmp_path / "agent")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in place.items()]
    (tmp_path / "halp.toml").write_text("\n".join(["[devices.xavier]", *lines]))

    def halp(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(verbs, list(words))
        assert done.exit_code == code, done.output
        return done.stdout

    assert "Fake Xavier, compute capability 7.2, through libcudart 11.4" in halp("device", "hello", "xavier")
    network = [word for word in TINY if word not in ("--runtime", "synthetic")]
    halp("prune", *network, *XAVIER, *BRIEF, "--budget", "70%", "--out", "run")
    (table,) = Path("luts").glob("*.jsonl")
    assert table.name.startswith("fake-xavier-tensorrt-8.5.2.2-fp32")
    halp("deploy", "run")
    record = json.loads(Path("engines/run-pruned-tensorrt-fp32-b1.json").read_text())["value"]
    assert record["runnable"]
    assert record["evidence"].startswith("engine, 3 of 3 products")
    halp("verify", "run", "--model", TINY[1], "--data", TINY[3], "--seconds", "0.2", code=1)
    verdict = json.loads(Path("run/verification.json").read_text())["value"]
    dense, pruned = (verdict[name]["measurement"]["latency_us"] for name in ("dense", "pruned"))
    assert pruned <= 0.7 * dense, "by the device's own clock"
    assert "MiB freed" in halp("device", "clean", "xavier")
