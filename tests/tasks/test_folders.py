"""Folders of pictures: found as before, held in few bytes, and read without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from halp_trt.errors import DataError, ModelError, UsageError
from halp_trt.store import sha256_bytes
from halp_trt.tasks import lesson_of, task_of
from halp_trt.tasks.data import is_labelled, load_data
from halp_trt.tasks.evaluation import evaluate
from halp_trt.tasks.files import Files, find_pictures
from halp_trt.tasks.preparation import PREPARATIONS
from halp_trt.training.loop import train
from halp_trt.training.settings import TrainSettings
from tests.tasks.test_data import layout, picture

TEACHING = TrainSettings(num_epochs=3, batch_size=5, learning_rate=0.05, precision="fp32", distillation=1.0)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Pictures at several depths, with names that sort differently as texts and as paths, and what is none."""
    for name in ("a-b/x.jpg", "a/y.png", "a.jpg", "Z.JPEG", "a/b/c/ü %.webp", ".hidden/k.jpg", "a/note.txt", "a/z.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(len(name)))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def test_pictures_are_found_in_the_order_of_their_paths(odd: Path) -> None:
    found = find_pictures(odd)
    paths = sorted(p for p in odd.rglob("*") if p.suffix.lower() in (".jpg", ".png", ".jpeg", ".webp") and p.is_file())
    assert [odd / name for name in found] == [path for path in paths if "loop" not in path.parts]
    assert len(found) == 8


def test_files_are_the_paths_that_went_in(odd: Path) -> None:
    names = find_pictures(odd)
    files = Files.of(odd, names)
    assert list(files) == [odd / name for name in names]
    assert (files[-1], list(files[2:4])) == (odd / names[-1], [odd / name for name in names[2:4]])
    assert list(files.take([3, 0])) == [odd / names[3], odd / names[0]]
    assert len(files.text) + files.ends.nbytes < 40 * len(names)
    with pytest.raises(IndexError):
        files[len(names)]


def test_a_folders_fingerprint_is_that_of_earlier_versions(tmp_path: Path) -> None:
    root = layout(tmp_path, {"train": 3, "val": 2})
    files = [*sorted((root / "train").rglob("*.jpg")), *sorted((root / "val").rglob("*.jpg"))]
    listing = [(file.relative_to(root).as_posix(), file.stat().st_size) for file in files]
    expected = sha256_bytes(repr(sorted(listing)).encode())
    source = f"imagefolder:{root}"
    assert load_data(source, input_shape=(3, 8, 8)).fingerprint == expected
    prepared = load_data(source, input_shape=(3, 8, 8), preparation=PREPARATIONS["imagenet"])
    assert prepared.fingerprint not in ("", expected)


def test_a_glance_decodes_nothing(tmp_path: Path) -> None:
    root = layout(tmp_path, {"train": 3, "val": 2})
    (root / "train" / "cat" / "0000.jpg").write_bytes(b"no picture")
    data = load_data(f"imagefolder:{root}", is_glance=True)
    assert (data.num_train, data.num_test, data.classes, data.reads_files) == (6, 4, ("cat", "ship"), True)
    with pytest.raises(DataError, match=r"0000\.jpg"):
        load_data(f"imagefolder:{root}", input_shape=(3, 8, 8))


# ---- without labels -------------------------------------------------------------------------------------------------


def test_a_plain_folder_is_its_own_training_and_test_split(odd: Path) -> None:
    data = load_data(f"pictures:{odd}", input_shape=(3, 8, 8))
    assert (data.num_train, data.num_test, data.classes, data.is_labelled) == (8, 8, (), False)
    assert torch.equal(data.train_batch([1, 5])[0], data.test_batch([1, 5])[0])
    assert not is_labelled(f"pictures:{odd}")
    assert is_labelled("digits")
    assert is_labelled("my.module:make")
    grey = load_data(f"pictures:{odd}", input_shape=(1, 8, 8), preparation=PREPARATIONS["imagenet"])
    assert grey.train_batch([0], augment_seed=1)[0].shape == (1, 1, 8, 8)


def test_a_network_learns_its_teachers_answers_from_it(odd: Path) -> None:
    data = load_data(f"pictures:{odd}", input_shape=(3, 8, 8))

    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()

    student, teacher = net(0), net(1)
    pictures = data.test_batch(range(8)).pictures

    def apart() -> float:
        with torch.no_grad():
            return float((student(pictures) - teacher(pictures)).abs().mean())

    before = apart()
    train(student, lesson_of(data, TEACHING, teacher=teacher))
    assert apart() < before
    with pytest.raises(UsageError, match=r"pictures:.* has no labels to learn from; set --distillation"):
        train(student, lesson_of(data, TEACHING))
    maps, other = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert task_of(data).loss((maps,), None, TEACHING, (other,)) == 1.0
    with pytest.raises(ModelError, match="choose a teacher with the same"):
        task_of(data).loss(maps, None, TEACHING, (other, maps))


def test_nothing_is_scored_on_it(odd: Path) -> None:
    data = load_data(f"pictures:{odd}", input_shape=(3, 8, 8))
    with pytest.raises(UsageError, match=r"has no labels, so nothing can be scored on it; name labelled pictures"):
        evaluate(lambda pictures: {"y": np.zeros((len(pictures), 4), np.float32)}, data)
    with pytest.raises(DataError, match="two classes"):
        load_data(f"pictures:{odd}", task="classification")
    assert not load_data("digits", task="unlabelled").is_labelled


def test_what_is_no_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    for path, sentence in ((tmp_path, "holds no picture"), (tmp_path / "none", "does not exist")):
        with pytest.raises(DataError, match=sentence):
            load_data(f"pictures:{path}")
    (tmp_path / "a.jpg").write_bytes(picture(1))
    with pytest.raises(DataError, match=f"or pictures:{tmp_path} for pictures without classes"):
        load_data(f"imagefolder:{tmp_path}")
