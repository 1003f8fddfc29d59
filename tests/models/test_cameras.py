"""Six cameras and one map: where places lie, one graph with two batches, priced and pruned as one."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import halp_trt
from halp_trt.errors import GraphMismatchError, ModelError
from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.latency import layer_latencies_us
from halp_trt.models.cameras.birds_eye import BirdsEyeNet, Trunk
from halp_trt.models.cameras.calibration import Camera, camera_ring, fit_of, read_calibration
from halp_trt.models.cameras.frame import read_frame
from halp_trt.models.cameras.places import Depths, Ground, places_of
from halp_trt.models.masks.hard import mask
from halp_trt.models.slim import slim
from halp_trt.models.sources import load_model
from halp_trt.models.trace import half_plan, trace, uneven_plan
from halp_trt.runtimes import available_runtimes, get_runtime
from halp_trt.specs import Budget, ChannelGraph, PruningPlan
from tests.graphs.agreement import random_plan
from tests.graphs.masked import lively

FRAME = Path(__file__).parents[3] / "shared/data/nuscenes-frame"
GROUND, DEPTHS, SIZE = Ground(shape=(16, 16), cell=4.0, heights=(0.0, 1.5)), Depths(step=5.0, count=8), (32, 64)
TOLERANCE = 1e-4


def small(cameras: tuple[Camera, ...] = ()) -> BirdsEyeNet:
    torch.manual_seed(0)

    def half(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    trunk = Trunk(nn.Sequential(*half(3, 16), *half(16, 16)), nn.Sequential(*half(16, 24)), (16, 24), 4)
    net = BirdsEyeNet(
        trunk, 3, SIZE, cameras=cameras, ground=GROUND, depths=DEPTHS, width=32, num_features=24,
        ground_widths=(32, 32, 48), num_blocks=1,
    )  # fmt: skip
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return lively(net)  # type: ignore[return-value]


@cache
def traced() -> tuple[BirdsEyeNet, onnx.ModelProto, ChannelGraph]:
    net, example = small(), (torch.zeros(1, 6, 3, *SIZE),)
    model = export(net, example)
    return net, model, trace(net, example, model=model)


def difference(net: nn.Module, model: onnx.ModelProto, plan: PruningPlan, pictures: torch.Tensor) -> float:
    """Largest difference between the masked network's outputs and the rewritten graph's, over the largest output."""
    masked = copy.deepcopy(net)
    mask(masked, plan)
    with torch.no_grad():
        expected = [value.numpy() for value in masked(pictures).values()]
    found = execute(rewrite(model, plan), {model.graph.input[0].name: pictures.numpy()})
    return max(
        float(np.abs(one - other).max()) / max(1.0, float(np.abs(other).max()))
        for one, other in zip(found.values(), expected, strict=True)
    )


# ---- where places lie -----------------------------------------------------------------------------------------------


def test_a_point_in_front_lies_in_the_middle_of_the_first_camera() -> None:
    ground = Ground(shape=(1, 41), cell=1.0, heights=(1.5,))
    places = places_of(camera_ring(), (90, 160), (9, 16), ground, Depths(first=1.0, step=1.0, count=30))
    ahead = 35  # 15 m before the vehicle's middle, 14 m before the camera
    assert places.seen[ahead] == 1
    assert places.pixels[ahead] == 4 * 16 + 8, "in the middle row and column of camera 0"
    assert places.depths[ahead] == 13 * 9 * 16 + 4 * 16 + 8, "14 m away, in the fourteenth stretch"
    behind = places.pixels[5]
    assert behind // (9 * 16) == 3, "the fourth camera looks back"
    assert places.seen[20] == 0, "nobody sees the vehicle's own place"


def test_left_and_right_are_not_taken_for_each_other() -> None:
    ground = Ground(shape=(41, 41), cell=1.0, heights=(1.5,))
    places = places_of(camera_ring(), (90, 160), (9, 16), ground, Depths(count=30))
    camera = (places.pixels // (9 * 16)).reshape(41, 41)
    seen = places.seen.reshape(41, 41) == 1
    assert seen.mean() > 0.9
    left, right = camera[40, 32], camera[8, 32]  # rows go to the left
    assert (right, left) == (1, 5), "the ring goes round to the right"


def test_pictures_are_scaled_to_cover_the_input_and_lose_their_top() -> None:
    camera = camera_ring()[0]
    wide, high = fit_of(camera, 256, 704), fit_of(camera, 450, 400)
    assert (wide.scale, wide.left, wide.top) == (0.44, 0, pytest.approx(140))
    assert (high.scale, high.left, high.top) == (0.5, 200, 0)


# ---- one graph with two batches -------------------------------------------------------------------------------------


def test_the_image_part_has_a_batch_of_six_and_the_map_the_network_s_own() -> None:
    _, _, graph = traced()
    batches = {layer.name: layer.spec.batch for layer in graph.layers if layer.spec.operator == "Conv"}
    assert {batch for name, batch in batches.items() if name.startswith("image.")} == {6}
    assert {batch for name, batch in batches.items() if not name.startswith("image.")} == {0}
    one = next(layer.spec for layer in graph.layers if layer.name == "image.smooth.0")
    assert str(one).endswith("batch 6")


def test_nearly_everything_can_be_pruned_and_features_go_with_the_map_s_first_layer() -> None:
    _, _, graph = traced()
    frozen = {group.name: group.num_channels for group in graph.groups if not group.prunable}
    assert sum(frozen.values()) < 0.15 * sum(group.num_channels for group in graph.groups)
    assert {"image.depths", "head.heat.1", "head.boxes.1"} <= set(frozen)
    name = "image.features"
    assert graph.group(name).num_channels == 24
    readers = {layer.name for layer in graph.layers if name in dict(layer.in_groups) and layer.spec.operator == "Conv"}
    assert readers == {"ground.stages.0.0.conv1", "ground.stages.0.0.shortcut.0"}
    assert {axis.parameter for axis in graph.parameters if {run.group for run in axis.runs} == {name}} >= {
        "image.features.weight", "ground.stages.0.0.conv1.weight",
    }  # fmt: skip


def test_pooling_costs_what_its_channels_cost() -> None:
    _, _, graph = traced()
    pooling = [layer for layer in graph.layers if layer.name.startswith("pooling/")]
    counts = half_plan(graph).counts()
    features = [layer for layer in pooling if layer.in_groups == (("image.features", 1),)]
    assert [layer.spec.operator for layer in features] == ["Gather", "Mul", "ReduceSum"]
    assert {layer.widths_at(counts) for layer in features} == {(12, 12)}


@pytest.mark.parametrize("make_plan", [PruningPlan.dense, half_plan, uneven_plan, random_plan])
def test_the_masked_network_is_the_rewritten_graph(make_plan) -> None:  # type: ignore[no-untyped-def]
    net, model, graph = traced()
    pictures = torch.randn(1, 6, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    assert difference(net, model, make_plan(graph), pictures) <= TOLERANCE


def test_the_network_can_run_narrow() -> None:
    net, _, graph = traced()
    plan, pictures = half_plan(graph), torch.randn(2, 6, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    masked = copy.deepcopy(net)
    mask(masked, plan)
    with torch.no_grad():
        found, expected = slim(copy.deepcopy(net), plan)(pictures), masked(pictures)
    assert all(torch.allclose(found[name], expected[name], atol=TOLERANCE) for name in expected)


def test_a_table_has_rows_of_both_batches_and_a_plan_meets_its_budget(tmp_path: Path) -> None:
    net, _, graph = traced()
    table = halp_trt.lookup(graph, tmp_path / "lut.jsonl", runtime="synthetic")
    scorer = halp_trt.scorer(net, graph, "magnitude")
    *_, last = halp_trt.prune(graph, table, budget="70%", score=lambda _: scorer.finish(), num_steps=1, grid_step=8)
    counts = {"dense": graph.dense_counts(), "pruned": last.plan.counts()}
    rows = halp_trt.load(tmp_path / "lut.jsonl").rows
    assert {spec.batch for spec in rows if spec.operator == "Conv"} == {0, 6}
    us = {name: sum(layer_latencies_us(graph, table.table, widths).values()) for name, widths in counts.items()}
    assert us["pruned"] <= Budget.parse("70%").latency_us(us["dense"])


def test_a_table_of_another_batch_is_refused(tmp_path: Path) -> None:
    _, _, graph = traced()
    with pytest.raises(GraphMismatchError, match=r"traced with a batch of 1, where .* has a batch of 6"):
        halp_trt.lookup(graph, tmp_path / "lut.jsonl", runtime="synthetic", batch_size=2)


@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
def test_a_plan_of_tensorrt_is_built() -> None:
    _, model, graph = traced()
    runtime = get_runtime("tensorrt-rtx")
    engine = runtime.build(rewrite(model, half_plan(graph)).SerializeToString(), runtime.target("fp32", 1))
    assert len(engine) > 0


# ---- the real frame -------------------------------------------------------------------------------------------------


NO_FRAME = "NOT TESTED: shared/data/nuscenes-frame is not here, and with it the real calibration and pictures"
"""What a skip says."""


@pytest.mark.skipif(not FRAME.is_dir(), reason=NO_FRAME)
def test_raw_outputs_are_the_masked_network_s_on_a_real_frame() -> None:
    net, pictures = small(read_calibration(FRAME)), read_frame(FRAME, *SIZE)
    assert pictures.shape == (1, 6, 3, *SIZE)
    assert 0.3 < float(pictures.std()) < 3
    ring, model, graph = traced()
    assert float(net.pooling.seen.mean()) > 0.7, "most of the map is seen"
    assert not torch.equal(net.pooling.pixels, ring.pooling.pixels)
    placed = with_weights(model, {name: value.numpy() for name, value in net.state_dict().items()})
    assert difference(net, placed, uneven_plan(graph), pictures) <= TOLERANCE
    assert difference(net, model, uneven_plan(graph), pictures) > TOLERANCE, "places come with the weights"


@pytest.mark.skipif(not FRAME.is_dir(), reason=NO_FRAME)
def test_the_real_calibration_s_cameras_look_where_they_are_named_for() -> None:
    cameras = read_calibration(FRAME)
    yaw = {camera.name: np.degrees(np.arctan2(camera.pose[1, 2], camera.pose[0, 2])) for camera in cameras}
    assert abs(yaw["CAM_FRONT"]) < 5
    assert abs(yaw["CAM_BACK"]) > 175
    assert 45 < yaw["CAM_FRONT_LEFT"] < 65
    assert -120 < yaw["CAM_BACK_RIGHT"] < -100


# ---- what is wrong --------------------------------------------------------------------------------------------------


def calibration(folder: Path, **changes: object) -> Path:
    rows = {
        f"CAM_{number}": {
            "cam2img": camera.intrinsics.tolist(), "cam2ego": camera.pose.tolist(), "width": 1600, "height": 900,
            **changes,
        }
        for number, camera in enumerate(camera_ring(5))
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps({"data_list": [{"images": rows}]}))
    return folder


def test_a_calibration_makes_a_network_of_its_cameras(tmp_path: Path) -> None:
    loaded = load_model(f"bev-resnet18:{calibration(tmp_path)}", input_shape=(5, 3, 32, 64), num_classes=2)
    assert loaded.output_names == ("heat", "boxes")
    assert loaded.input_shape == (5, 3, 32, 64)
    assert loaded.module.num_cameras == 5


@pytest.mark.parametrize(
    ("source", "shape", "words"),
    [
        ("bev-resnet18", (5, 3, 64, 96), r"5x3x64x96 is not that of a ring of 6 cameras, 6x3xHEIGHTxWIDTH; give"),
        ("bev-resnet18", (3, 64, 96), r"3x64x96 is not that of a ring of 6 cameras"),
        ("bev-resnet50", (6, 1, 64, 96), r"6x1x64x96 is not that of a ring of 6 cameras"),
        ("bev-resnet18", (6, 3, 60, 96), r"sides are multiples of 32"),
        ("bev-resnet18:", None, "is not known; did you mean"),
        ("bev-resnet18:nowhere", None, "nowhere holds no calibration, expected info.json"),
    ],
)
def test_what_does_not_fit_the_cameras_is_one_sentence(source: str, shape: tuple[int, ...] | None, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(source, input_shape=shape)


def test_pictures_of_another_number_of_cameras_are_refused() -> None:
    with pytest.raises(ModelError, match=r"made for 6 cameras, \[N, 6, 3, H, W\], and got \[1, 5, 3, 32, 64\]"):
        small()(torch.zeros(1, 5, 3, *SIZE))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cam2img": [[1, 0], [0, 1]]}, r"CAM_0: cam2img is of shape \(2, 2\), expected 3x3 finite numbers"),
        ({"cam2ego": "left"}, "CAM_0: cam2ego is no numbers, expected 4x4"),
        ({"cam2ego": None}, "expected 4x4 finite numbers"),
        ({"cam2img": [[0.0] * 3] * 3}, "cam2img has no inverse"),
        ({"width": None}, r"holds 0 pictures of the camera CAM_0, expected one \*__CAM_0__\*.jpg"),
    ],
)
def test_an_odd_calibration_is_one_sentence(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        read_calibration(calibration(tmp_path, **changes))


def test_a_file_without_cameras_and_a_picture_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text("[]")
    with pytest.raises(ModelError, match="names no cameras, expected data_list"):
        read_calibration(tmp_path)
    calibration(tmp_path, width=None)
    (tmp_path / "a__CAM_0__1.jpg").write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"a__CAM_0__1\.jpg is no picture that can be read"):
        read_calibration(tmp_path)
