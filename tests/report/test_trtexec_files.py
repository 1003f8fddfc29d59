"""Layers and logs that TensorRT wrote: every public file, both schemas, number formats, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halp_trt.device.tensorrt.inspector import compute_format
from halp_trt.errors import ArtefactError
from halp_trt.gate.engine_layers import EngineLayers
from halp_trt.gate.trtexec import LayerProfiles, QueryRuns
from halp_trt.gate.trtexec_log import TrtexecLog
from halp_trt.report import describe
from halp_trt.store import load
from halp_trt.store.inspected import inspected_layers
from halp_trt.store.trtexec_log import read_log
from halp_trt.workflows.show import open_artefact, page_of

REAL = Path(__file__).parents[3] / "shared" / "data" / "tensorrt"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real files of TensorRT are not in {REAL}; nothing to read")
FILES = {
    "cookbook-trtexec-verbose-build.log": TrtexecLog,
    "fuzzylabs-resnet18-fp16-rtx3060m.graph.json": EngineLayers,
    "fuzzylabs-resnet18-fp16-rtx3060m.profile.json": LayerProfiles,
    "fuzzylabs-resnet18-onnx-rtx3060m.engine_info.json": EngineLayers,
    "fuzzylabs-resnet18-torchtrt-jetson-orin.engine_info.json": EngineLayers,
    "trex-resnet18-fp16-a100.graph.json": EngineLayers,
    "trex-resnet18-fp16-a100.profile.json": LayerProfiles,
    "trex-resnet18-fp16-a100.profile.metadata.json": TrtexecLog,
    "trex-resnet18-fp16-a100.timing.json": QueryRuns,
    "trex-resnet50-qat-rtx3090.graph.json": EngineLayers,
    "trex-resnet50-qat-rtx3090.timing.json": QueryRuns,
    "xavier-nx-trt8502-lprnet.profile.json": LayerProfiles,
}
PRINTED_8 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=a.plan --dumpProfile
[10/21/2025-10:00:00] [I] Selected Device: Xavier
[10/21/2025-10:00:00] [I] Compute Capability: 7.2
[10/21/2025-10:00:00] [I] === Performance summary ===
[10/21/2025-10:00:00] [I] Throughput: 101.5 qps
[10/21/2025-10:00:00] [I] Latency: min = 9 ms, max = 11 ms, mean = 10.1 ms, median = 10 ms, percentile(99%) = 10.9 ms
[10/21/2025-10:00:00] [I] GPU Compute Time: min = 8.9 ms, max = 10.9 ms, mean = 9.9 ms, median = 9.8 ms
[10/21/2025-10:00:00] [W] * GPU compute time is unstable, with coefficient of variance = 4.76%.
[10/21/2025-10:00:00] [I] === Profile (309 iterations ) ===
[10/21/2025-10:00:00] [I]                  Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
[10/21/2025-10:00:00] [I]   conv1 + PWN(re_lu_clip)       28.84           0.0933             0.0895      0.9
[10/21/2025-10:00:00] [I]     {ForeignNode[a...b]}     2130.62           6.8952             6.2962     69.4
[10/21/2025-10:00:00] [I]                  Total     2159.46           6.9885             6.3857    100.0
[10/21/2025-10:00:00] [I]
&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=a.plan --dumpProfile
"""
PRINTED_10 = """\
[I] === Profile (50 iterations ) ===
[I]    Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
[I]       28.84       0.0933       0.0895       0.9   /conv1/Conv + /relu/Relu
[I]      100.00       2.0000       1.9000      99.1   /layer1/Conv
[I]      128.84       2.0933       1.9895     100.0   Total
"""


@real
def test_every_public_file_is_read_and_shown() -> None:
    found = {path.name for path in REAL.iterdir() if path.suffix in (".json", ".log")}
    assert found == set(FILES)
    for name, kind in FILES.items():
        value = load(REAL / name)
        assert type(value) is kind, name
        assert len(describe(value).splitlines()) > 1


@real
def test_formats_of_real_engines() -> None:
    halves = load(REAL / "fuzzylabs-resnet18-fp16-rtx3060m.graph.json")
    assert halves.types()["/conv1/Conv"] == "fp16"
    assert halves.unread() == ()
    secret = load(REAL / "fuzzylabs-resnet18-onnx-rtx3060m.engine_info.json")
    kinds = secret.types()
    assert kinds["/conv1/Conv"] == "tf32"
    assert kinds["/layer1/layer1.0/conv1/Conv"] == "fp32"
    assert "1 in tf32" in describe(secret)
    quantised = load(REAL / "trex-resnet50-qat-rtx3090.graph.json")
    assert {layer.number_format for layer in quantised.layers if layer.parameters == "Convolution"} == {"int8"}
    torch = load(REAL / "fuzzylabs-resnet18-torchtrt-jetson-orin.engine_info.json")
    assert {layer.number_format for layer in torch.layers if layer.parameters == "Convolution"} == {"fp16"}


@real
def test_names_of_a_profile_are_those_of_the_layers() -> None:
    (profile,) = load(REAL / "fuzzylabs-resnet18-fp16-rtx3060m.profile.json").profiles
    layers = load(REAL / "fuzzylabs-resnet18-fp16-rtx3060m.graph.json").layers
    assert [layer.name for layer in profile.layers] == [layer.name for layer in layers]
    (copied,) = load(REAL / "xavier-nx-trt8502-lprnet.profile.json").profiles
    assert (copied.num_runs, len(copied.layers)) == (309, 28)
    assert copied.layers[3].median_us == pytest.approx(89.5)


@real
def test_a_real_log_tells_version_device_and_outcome() -> None:
    log = load(REAL / "cookbook-trtexec-verbose-build.log")
    assert (log.version, log.outcome) == ("10.16.1", "passed")
    assert (log.facts["Selected Device"], log.facts["Compute Capability"]) == ("NVIDIA H100 PCIe", "9.0")
    assert log.facts["CUDA Graph"] == "Disabled"
    assert any("Weakly-typed networks have been deprecated" in text for text in log.warnings)
    summary = load(REAL / "trex-resnet18-fp16-a100.profile.metadata.json")
    assert summary.queries_per_second == 1155.36
    assert summary.times["GPU Compute Time"].median_us == pytest.approx(862.183)


def test_a_printed_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(PRINTED_8)
    log = load(tmp_path / "run.log")
    assert (log.version, log.queries_per_second) == ("8.5.2", 101.5)
    assert log.times["GPU Compute Time"].median_us == pytest.approx(9800)
    assert log.warnings == ("* GPU compute time is unstable, with coefficient of variance = 4.76%.",)
    (profile,) = log.profiles
    assert [layer.name for layer in profile.layers] == ["conv1 + PWN(re_lu_clip)", "{ForeignNode[a...b]}"]
    assert profile.layers[1].median_us == pytest.approx(6296.2)
    page = page_of(open_artefact(tmp_path / "run.log"))
    assert "GPU Compute Time" in page


def test_newer_tables_have_the_name_last() -> None:
    (profile,) = read_log(PRINTED_10.encode()).profiles
    assert [(layer.name, layer.mean_us) for layer in profile.layers] == [
        ("/conv1/Conv + /relu/Relu", pytest.approx(93.3)),
        ("/layer1/Conv", pytest.approx(2000.0)),
    ]


@pytest.mark.parametrize("cut", [0, 1, 40, 200, 700, len(PRINTED_8) - 5])
def test_a_log_may_have_lost_its_ends(cut: int) -> None:
    for text in (PRINTED_8[cut:], PRINTED_8[: len(PRINTED_8) - cut], PRINTED_8.replace("ms", "\udcff", 3)):
        read_log(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("data", "tactic", "found"),
    [
        ("fp32", "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc", "tf32"),
        ("fp32", "sm80_xmma_gemm_TF32_x", "tf32"),
        ("fp32", "sm80_xmma_fprop_wngd_f32f32_f32_f32", "fp32"),
        ("fp16", "sm80_xmma_f16f16_f32_f16", "fp16"),
        ("fp32", "", "fp32"),
        ("", "tf32", ""),
    ],
)
def test_tf32_is_in_the_kernel_s_name(data: str, tactic: str, found: str) -> None:
    assert compute_format(data, tactic) == found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"Layers": [3]}, "layer 1 is 3, expected an object"),
        ({"Layers": [{"Name": "a", "Inputs": [1]}]}, "layer 'a' has Inputs"),
        ({"Layers": [], "I/O Tensors": [1]}, "I/O Tensors"),
        ({"performance_summary": {"Latency": [1]}}, "'Latency' is no list of least"),
        ({"performance_summary": {}, "device_information": 3}, "its device_information is 3"),
        ({"columns": ["layer"], "layers": [["a"]]}, "averageMs null"),
        ({"columns": ["layer"], "layers": [["a", 3]]}, "row 1 is a list, expected a list of 1 cells"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, value: object, words: str) -> None:
    (tmp_path / "file.json").write_text(json.dumps(value))
    with pytest.raises(ArtefactError, match="looks like a file of TensorRT's but is damaged") as refused:
        load(tmp_path / "file.json")
    assert words in str(refused.value)


def test_engines_without_detail_say_so() -> None:
    assert "names alone" in describe(EngineLayers(layers=()))


def test_a_tensor_whose_name_is_none_is_no_edge() -> None:
    """A damaged file that the fuzzer found."""
    tensor = {"Name": ["x"], "Format/Datatype": "Row major linear FP32"}
    inspected = {"Layers": [{"Name": "conv", "Inputs": [tensor], "Outputs": []}], "Bindings": ["x", "y"]}
    assert dict(inspected_layers(inspected).edges) == {}
