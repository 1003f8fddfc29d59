"""Every command line in the guides is one that the real parser takes, and what they name exists."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import click
import onnx
import pytest

from halp_trt.cli import verbs
from halp_trt.device import gpu, gpu_bench
from halp_trt.runtimes import gpu_timing
from halp_trt.runtimes.cpu.round_bench import ROUNDS
from halp_trt.runtimes.cpu.settled_bench import SETTLED

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [ROOT / f"docs/{name}.md" for name in ("jetson-xavier", "titan-v", "data-centre", "rtx", "timing")]
PAGES = [
    *GUIDES,
    *(
        ROOT / f"docs/{name}.md"
        for name in ("tutorial", "extending", "python", "bench", "sharing", "training", "devices", "tables")
    ),
    *(ROOT / f"docs/{name}.md" for name in ("methods", "saliency")),
]
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
COMMANDS = [
    pytest.param(line.strip().removeprefix("$ halp-trt "), id=f"{name}: {line.strip()[11:50]}")
    for name, text in TEXTS.items()
    for line in text.splitlines()
    if line.strip().startswith("$ halp-trt ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_parser_takes_every_command(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(line)
    verb = verbs.commands[name]
    if isinstance(verb, click.Group):
        name, *arguments = arguments
        verb = verb.commands[name]
    with verb.make_context(name, arguments, parent=click.Context(verbs)) as context:
        assert context.params


def test_a_wrong_command_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--modle", "demo"], ["--runtime", "abacus"], ["--width-step", "none"]):
        with pytest.raises(click.UsageError):
            verbs.commands["build-lut"].make_context("build-lut", arguments, parent=click.Context(verbs))


@pytest.mark.parametrize("name", [path.stem for path in GUIDES if path.stem != "timing"])
def test_a_guide_goes_from_installation_over_clocks_to_a_verified_plan(name: str) -> None:
    verbs_named = re.findall(r"^\s*\$ halp-trt (\S+)", TEXTS[name], re.MULTILINE)
    assert [verb for verb in verbs_named if verb in ("build-lut", "prune", "deploy", "verify")][:4] == [
        "build-lut", "prune", "deploy", "verify",
    ]  # fmt: skip
    assert "tools/gpu_check" in TEXTS[name]
    assert re.search(r"\$ sudo (nvidia-smi -lgc|nvpmodel -m 0)", TEXTS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_extras_links_and_lengths_are_right(name: str) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    for extras in re.findall(r"halp-trt\[([a-z,-]+)\]", TEXTS[name]):
        assert set(extras.split(",")) <= set(parser["options.extras_require"])
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXTS[name]):
        assert (ROOT / "docs" / link).exists(), link
    for tool in re.findall(r"tools/\w+|benchmarks/\w+\.py", TEXTS[name]):
        assert (ROOT / tool).exists(), tool


def test_the_timing_page_states_the_code_s_own_numbers() -> None:
    text = TEXTS["timing"]
    protocol = gpu_timing.PROTOCOL
    assert protocol.method in text
    assert f"{protocol.warmup_ms:.0f} ms" in text
    assert f"{protocol.num_samples} samples" in text
    assert protocol.num_in_flight == 2
    assert f"at most {gpu._MAX_EXECUTIONS}" in text
    assert f"above {gpu_bench._MAX_VARIATION:.1%}".replace("%", " %") in text
    assert f"by more than {gpu_bench._MAX_CLOCK_CHANGE:.0%}".replace("%", " %") in text
    assert f"more than {gpu_bench._MAX_DRIFT:.0%}".replace("%", " %") in text
    assert f"above {gpu_bench._ENQUEUE_BOUND} of the latency" in text
    assert ROUNDS in text
    assert SETTLED in text


def test_the_python_in_the_xavier_guide_converts_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, (1, 2, 3, 3)) for name in "xy"]
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, (2,), [2, 3])
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=1)
    values[1].type.tensor_type.shape.dim[2].dim_value = values[1].type.tensor_type.shape.dim[3].dim_value = 1
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [axes])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/host").mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), "runs/host/pruned.onnx")
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXTS["jetson-xavier"], re.MULTILINE | re.DOTALL)
    exec(compile(code, "guide", "exec"), {})
    converted = onnx.load("pruned.onnx")
    assert [(opset.domain, opset.version) for opset in converted.opset_import] == [("", 17)]
    assert all(node.op_type != "ReduceMean" or len(node.input) == 1 for node in converted.graph.node)
