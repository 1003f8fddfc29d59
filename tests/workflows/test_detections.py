"""Detectors through deploy and verify: detections in the graph, the host's share, low precisions, drawn pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from halp_trt.errors import ModelError, UsageError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.suppression import with_tail
from halp_trt.models.detection.ssd import Ssd
from halp_trt.models.reference import named
from halp_trt.models.slim import slim
from halp_trt.models.sources import LoadedModel, load_model
from halp_trt.models.trial import half_plan
from halp_trt.report import describe
from halp_trt.runtimes import available_runtimes
from halp_trt.specs import Verification
from halp_trt.store import save, save_tensors, write_bytes
from halp_trt.tasks import Draws, Reads, task_of
from halp_trt.tasks.detection.objects import Detections
from halp_trt.tasks.detection.task import found_in
from halp_trt.tasks.evaluation import module_predict
from halp_trt.workflows.deploy import Deployment, DeployOptions
from halp_trt.workflows.deploy_stage import deploy_alone
from halp_trt.workflows.detections import tail_of
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prepared import prepare
from halp_trt.workflows.settings import DeploySettings, Settings
from halp_trt.workflows.show import open_artefact, page_of, text_of
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_alone
from tests.graphs.test_suppression import passing, unpacked
from tests.tasks.detection.folders import voc
from tests.tasks.detection.test_task import masks

IN_GRAPH = DeploySettings(nms="onnx")
BOXES = {
    "one": [("a", 1, 1, 20, 15, False)],
    "two": [("a", 21, 11, 40, 30, False), ("b", 5, 5, 14, 20, True)],
    "none": [],
    "four": [("<b>&", 3, 4, 22, 25, False)],
}


def tiny(num_classes: int = 3) -> tuple[nn.Module, torch.Tensor]:
    """A detector of pictures of 32x32 pixels; it finds much everywhere."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 4, 1), nn.ReLU()
    )
    module = Ssd(backbone, num_classes, (32, 32), extras=((8, 16),))
    for head in module.class_heads:
        nn.init.normal_(head.weight, std=0.3)
    return module, torch.zeros(1, 3, 32, 32)


def flat(num_classes: int = 2) -> tuple[nn.Module, torch.Tensor]:
    """A segmenter of pictures of 16x16 pixels."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, num_classes, 1))
    return module, torch.zeros(1, 3, 16, 16)


def loaded(module: nn.Module, *shape: int) -> LoadedModel:
    example = (torch.zeros(*shape),)
    names = tuple(named(module.eval()(*example)))
    return LoadedModel(module=module, example=example, source="mine", output_names=names)


# ---- the tail of every head -----------------------------------------------------------------------------------------


def small_ssd() -> LoadedModel:
    module, _ = tiny()
    return loaded(module, 2, 3, 32, 32)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(small_ssd, id="ssd"),
        pytest.param(lambda: load_model("fastestdet", num_classes=4, input_shape=(3, 64, 64)), id="fastestdet"),
        pytest.param(lambda: load_model("examples.detection.yolo_like:network"), id="yolo-like"),
        *(
            pytest.param(
                lambda name=name: load_model(f"torchvision-detection:{name}", num_classes=3, input_shape=(3, 96, 96)),
                id=name,
                marks=pytest.mark.nightly,
            )
            for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn")
        ),
    ],
)
def test_the_graph_of_every_head_finds_what_the_host_finds(make: Callable[[], LoadedModel]) -> None:
    network = make()
    with torch.no_grad():
        raw = named(network.module(*network.example))
    random = torch.Generator().manual_seed(0)
    raw = {name: value.abs() + torch.rand(value.shape, generator=random) for name, value in raw.items()}
    tail = tail_of(IN_GRAPH, network)
    assert tail is not None
    names = [value.name for value in tail.model.graph.input]
    given = dict(zip(names, raw.values(), strict=True))
    model = with_tail(passing(*((name, list(value.shape)) for name, value in given.items())), tail)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = unpacked(session.run(None, {f"{name}_in": value.numpy() for name, value in given.items()}))
    boxes, scores = (tensor.float().numpy() for tensor in network.module.detection.read(raw))
    for one, *own in zip(found, boxes, scores, strict=True):
        alike(one, found_in(*own))


def alike(found: Detections, wanted: Detections) -> None:
    """The same detections but for rounding: those of nearly equal scores may stand in another order."""
    assert abs(len(found.scores) - len(wanted.scores)) <= 1
    num = min(len(found.scores), len(wanted.scores))
    assert num > 0
    np.testing.assert_allclose(found.scores[:num], wanted.scores[:num], atol=1e-5)
    is_same = (found.labels[:num] == wanted.labels[:num]) & (
        np.abs(found.boxes[:num] - wanted.boxes[:num]).max(axis=1) < 1e-4
    )
    assert is_same.mean() > 0.95


class Odd:
    """A reader that leaves PyTorch."""

    def read(self, outputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        found = np.sort(outputs["output"].numpy())
        return torch.from_numpy(found), torch.from_numpy(found)


class Misread(Odd):
    """A reader that gives something else than boxes and scores."""

    def read(self, outputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return outputs["output"], outputs["output"] + 1


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (None, "mine does not say how boxes are read from its raw outputs; expected an attribute 'detection'"),
        (Odd(), "detection.read of mine cannot become a graph"),
        (Misread(), r"detection.read of mine gives \[1, 4, 8, 8\] and .*, expected boxes \[1, A, 4\]"),
    ],
)
def test_a_network_that_offers_no_decoding_is_one_sentence(head: Any, sentence: str) -> None:
    module = nn.Conv2d(3, 4, 1)
    module.detection = head
    with pytest.raises(ModelError, match=sentence) as error:
        tail_of(IN_GRAPH, loaded(module, 1, 3, 8, 8))
    assert "--nms host" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# ---- runs -----------------------------------------------------------------------------------------------------------


def run_of(folder: Path, model: str, data: str, shape: tuple[int, int, int]) -> tuple[RunFolder, Settings]:
    """A run's folder with every other channel of a network removed, untrained."""
    run = RunFolder(path=folder / "half")
    settings = Settings.of(model=model, input=shape, data=data, runtime="onnxruntime", workers="0")
    network, pictures = network_of(settings)
    prepared = prepare(network, pictures)
    plan = half_plan(prepared.graph)
    save(plan, run.plan)
    run.write_settings(settings)
    save_tensors(run.trained, network.module.state_dict())
    write_bytes(run.dense_model, prepared.model.SerializeToString())
    write_bytes(run.pruned_model, rewrite(prepared.model, plan).SerializeToString())
    slim(network.module, plan)
    save_tensors(run.weights, network.module.state_dict())
    return run, settings


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Settings]:
    folder = tmp_path_factory.mktemp("detector")
    return run_of(folder, f"{__name__}:tiny", f"voc:{voc(folder / 'voc', BOXES, BOXES)}", (3, 32, 32))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Settings]:
    folder = tmp_path_factory.mktemp("segmenter")
    return run_of(folder, f"{__name__}:flat", f"masks:{masks(folder / 'masks')}", (3, 16, 16))


def deployed(run: RunFolder, settings: Settings, engines: Path, **values: str) -> Deployment:
    return deploy_alone(run, settings.changed(**values), DeployOptions(engines=engines))


def verified(run: RunFolder, settings: Settings, engines: Path, **values: str) -> Verification:
    limits = Tolerances(latency_fraction=99, seconds=0)
    return verify_alone(run, settings.changed(**values), engines=engines, tolerances=limits)


def test_deploy_writes_one_more_engine_that_finds_what_the_host_finds(
    detector: tuple[RunFolder, Settings], tmp_path: Path
) -> None:
    run, settings = detector
    built = deployed(run, settings, tmp_path, nms="onnx")
    single = built.with_nms[0]
    assert single.file == "half-pruned-nms-onnxruntime-fp32-b1.onnx"
    assert "NonMaxSuppression within each class, scores from 0.01" in single.flags["detections"]
    assert single.parents == built.pruned.parents
    assert "detections: ONNX NonMaxSuppression" in describe(single)
    assert "detections" not in built.pruned.flags, "the pruned engine ends at the raw outputs"
    assert built.with_nms == (single,), "TensorRT for RTX has no kernel for it"
    raw, whole = (
        onnxruntime.InferenceSession(str(tmp_path / record.file), providers=["CPUExecutionProvider"])
        for record in (built.pruned, single)
    )
    network, data = network_of(settings)
    assert data is not None
    pictures, _ = data.test_batch(range(data.num_test))
    for picture in pictures.numpy():
        given = {raw.get_inputs()[0].name: picture[None]}
        found = unpacked(whole.run(None, given))
        outputs = dict(zip(network.output_names, raw.run(None, given), strict=True))
        (wanted,) = task_of(data).predict(outputs)
        assert len(wanted.scores) > 3
        alike(found[0], wanted)


def test_without_the_setting_nothing_is_added(detector: tuple[RunFolder, Settings], tmp_path: Path) -> None:
    built = deployed(*detector, tmp_path)
    assert built.with_nms == ()
    assert not list(tmp_path.glob("*nms*"))


@pytest.mark.parametrize("runtime", ["torch", "tensorrt-rtx"])
def test_a_runtime_without_suppression_is_one_sentence(
    detector: tuple[RunFolder, Settings], tmp_path: Path, runtime: str
) -> None:
    if runtime not in available_runtimes():
        pytest.skip(f"{runtime} is not installed")
    with pytest.raises(UsageError, match="has no NonMaxSuppression; leave suppression to the host with --nms host"):
        deployed(*detector, tmp_path, nms="onnx", runtime=runtime)
    assert not list(tmp_path.iterdir())


def test_a_segmenter_has_no_boxes_to_suppress(segmenter: tuple[RunFolder, Settings], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not say how boxes are read"):
        deployed(*segmenter, tmp_path, nms="onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_verification_shows_the_hosts_share_and_what_a_precision_changes(
    detector: tuple[RunFolder, Settings], tmp_path: Path, precision: str
) -> None:
    run, settings = detector
    deployed(run, settings, tmp_path, precision=precision)
    found = verified(run, settings, tmp_path, precision=precision)
    assert found.pruned.reading is not None
    assert found.pruned.reading.name == "decoding and NMS"
    assert found.pruned.reading.latency_us > 0
    assert set(found.output_differences) == {"classes", "boxes"}
    assert max(found.output_differences.values()) == found.max_difference
    text = describe(found)
    assert "decoding and NMS, on the host" in text
    assert "boxes off the masked model" in text
    assert "accuracy" not in text
    assert found.fp32_score is not None
    assert f"{found.fp32_score.name} in fp32" in text
    assert f"points in {precision}" in text
    assert 0 < found.max_difference < 0.5
    assert run.read_verification() == found


def test_a_runs_page_shows_what_both_engines_find(detector: tuple[RunFolder, Settings], tmp_path: Path) -> None:
    run, settings = detector
    deployed(run, settings, tmp_path)
    found = verified(run, settings, tmp_path)
    assert found.fp32_score is None, "it is the engine's own"
    assert found.max_difference < 1e-4
    examples = run.read_examples()
    assert [one.name for one in examples.pictures] == ["one.jpg", "two.jpg", "none.jpg", "four.jpg"]
    assert all(set(one.drawings) == {"labelled", "dense", "pruned"} for one in examples.pictures)
    assert [one.counts["labelled"] for one in examples.pictures] == ["1 a", "1 a", "nothing", "1 <b>&"]
    page = page_of(open_artefact(run.path))
    assert "What the engines find" in page
    assert page.count('<img src="data:image/jpeg;base64,/9j/') == 12
    assert "1 &lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "decoding and NMS, on the host" in page
    assert len(page) < 2_000_000
    assert "one.jpg" in describe(examples)
    assert "What the engines find" in page_of(open_artefact(run.examples))
    assert text_of(open_artefact(run.path))


def test_a_segmenters_page_shows_masks(segmenter: tuple[RunFolder, Settings], tmp_path: Path) -> None:
    run, settings = segmenter
    deployed(run, settings, tmp_path, precision="int8")
    found = verified(run, settings, tmp_path, precision="int8")
    assert found.fp32_score is not None
    assert found.fp32_score.name == "mIoU"
    (example,) = run.read_examples().pictures
    assert example.counts["labelled"] == "38% not 0"
    assert "mIoU in fp32" in page_of(open_artefact(run.path))


# ---- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (f"{__name__}:too_few", r"tells 2 classes apart, and voc:.* has 3 \(<b>&, a, b\); build it for all of them"),
        (f"{__name__}:flat", "does not say how its raw outputs are read; expected an attribute 'detection'"),
        (f"{__name__}:others", r"the network's raw outputs are .*, expected classes \[N, "),
        ("demo", "the network does not say how its raw outputs are read"),
    ],
)
def test_a_network_that_the_data_do_not_suit_is_refused_when_it_is_loaded(
    model: str, sentence: str, detector: tuple[RunFolder, Settings]
) -> None:
    _, settings = detector
    with pytest.raises(ModelError, match=sentence) as error:
        network_of(settings.changed(model=model))
    assert re.fullmatch(r"[^\n]+", str(error.value))


def too_few() -> tuple[nn.Module, torch.Tensor]:
    """A detector of two classes."""
    return tiny(2)


def others() -> tuple[nn.Module, torch.Tensor]:
    """A detector whose head is another's."""
    module, example = tiny(3)
    module.detection = Ssd(module.backbone, 3, (64, 64), extras=((8, 16),)).detection
    return module, example


def test_tasks_with_boxes_and_masks_read_and_draw(
    detector: tuple[RunFolder, Settings], segmenter: tuple[RunFolder, Settings]
) -> None:
    for _, settings in (detector, segmenter):
        network, data = network_of(settings)
        assert data is not None
        task = task_of(data)
        assert isinstance(task, Reads)
        assert isinstance(task, Draws)
        pictures, targets = data.test_batch([0])
        pixels, _ = data.test.read([0])
        for answer in (task.labelled(targets[0]), task.predict(module_predict(network.module)(pictures.numpy()))[0]):
            drawn = task.draw(pixels[0], answer, targets[0])
            assert drawn.mode == "RGB"
            assert max(drawn.size) == 320
