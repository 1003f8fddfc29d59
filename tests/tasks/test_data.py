import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from halp_trt.errors import DataError
from halp_trt.tasks import augment
from halp_trt.tasks.data import load_data
from halp_trt.tasks.pictures import ArrayPictures, FolderPictures, decode
from halp_trt.training.batches import Batch

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10.tar.xz"


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    """An encoded JPEG of smooth noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def layout(root: Path, splits: dict[str, int], classes=("cat", "ship"), size=(32, 32)) -> Path:
    """Folders ``<split>/<class>/`` with so many pictures each; no split folder for the split ''."""
    for s, (split, num) in enumerate(splits.items()):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                (folder / f"{i:04d}.jpg").write_bytes(picture(1000 * s + 100 * c + i, size))
    return root


def archive(root: Path, to: Path) -> Path:
    with tarfile.open(to, "w:xz") as tar:
        for split in ("train", "test"):
            tar.add(root / split, arcname=split)
    return to


# ---- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [augment.shift, augment.shift_and_flip])
def test_augmentation_moves_pictures_by_at_most_an_eighth(function):
    pixels = torch.arange(1, 1 + 16 * 16, dtype=torch.int32).view(1, 1, 16, 16).repeat(40, 2, 1, 1)
    moved, labels = function(Batch(pixels, torch.arange(40)), torch.Generator().manual_seed(0))
    assert torch.equal(labels, torch.arange(40))
    assert moved.shape == pixels.shape
    assert moved.dtype == pixels.dtype
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert len({tuple(m.flatten().tolist()) for m in moved[:, 0]}) > 5
    candidates = {
        tuple(view[y : y + 16, x : x + 16].flatten().tolist())
        for base in (pixels[0, 0], pixels[0, 0].flip(1))
        for view in [torch.nn.functional.pad(base, (2, 2, 2, 2))]
        for y in range(5)
        for x in range(5)
    }
    assert all(tuple(m.flatten().tolist()) in candidates for m in moved[:, 0])


# ---- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    data, again = load_data("digits"), load_data("digits")
    assert (data.num_train, data.num_test, data.num_classes) == (1438, 359, 10)
    assert np.array_equal(data.test.labels, again.test.labels)
    assert data.fingerprint == again.fingerprint
    train = {row.tobytes() for row in data.train.pixels}
    assert sum(row.tobytes() in train for row in data.test.pixels) == 0


def test_digit_batches_are_normalised_at_the_networks_input_shape():
    data = load_data("digits", input_shape=(3, 24, 24))
    pictures, labels = data.train_batch(range(data.num_train))
    assert pictures.shape == (1438, 3, 24, 24)
    assert pictures.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal(pictures[:, 0], pictures[:, 2])
    assert abs(float(load_data("digits").train_batch(range(1438))[0].mean())) < 0.01
    assert abs(float(load_data("digits").train_batch(range(1438))[0].std()) - 1) < 0.01


def test_augmentation_follows_from_its_seed():
    data = load_data("digits")
    plain, first, again, other = (data.train_batch(range(32), augment_seed=s)[0] for s in (None, 1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)


# ---- CIFAR-10 -------------------------------------------------------------------------------------------------------


def test_cifar_folder_and_archive_give_the_same_arrays(tmp_path):
    root = layout(tmp_path / "cifar", {"train": 6, "test": 3})
    folder = load_data(f"cifar10:{root}")
    packed = load_data(f"cifar10:{archive(root, tmp_path / 'c.tar.xz')}")
    assert (folder.num_train, folder.num_test, folder.classes) == (12, 6, ("cat", "ship"))
    assert np.array_equal(folder.train.pixels, packed.train.pixels)
    assert np.array_equal(folder.test.labels, packed.test.labels)
    assert folder.train_batch([0, 11])[0].shape == (2, 3, 32, 32)


def test_cifar_cache_is_used_and_follows_its_pictures(tmp_path):
    root, cache = layout(tmp_path / "cifar", {"train": 4, "test": 2}), tmp_path / "cache.npz"
    first = load_data(f"cifar10:{root}", cache=cache)
    again = load_data(f"cifar10:{root}", cache=cache)
    assert np.array_equal(first.train.pixels, again.train.pixels)
    (root / "train" / "cat" / "new.jpg").write_bytes(picture(7))
    assert load_data(f"cifar10:{root}", cache=cache).num_train == 9


def test_damaged_cifar_cache_is_made_again(tmp_path):
    root, cache = layout(tmp_path / "cifar", {"train": 4, "test": 2}), tmp_path / "cache.npz"
    load_data(f"cifar10:{root}", cache=cache)
    cache.write_bytes(cache.read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"cache\.npz is damaged"):
        assert load_data(f"cifar10:{root}", cache=cache).num_train == 8
    assert load_data(f"cifar10:{root}", cache=cache).num_train == 8


def test_truncated_archive_is_refused(tmp_path):
    root = layout(tmp_path / "cifar", {"train": 4, "test": 2})
    packed = archive(root, tmp_path / "c.tar.xz")
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(DataError, match="complete tar archive"):
        load_data(f"cifar10:{packed}")


def test_archive_without_pictures_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="holds no train pictures"):
        load_data(f"cifar10:{archive(tmp_path, tmp_path / 'c.tar.xz')}")


@pytest.mark.parametrize("packed", [False, True])
def test_a_corrupted_cifar_picture_is_named_and_refused_or_skipped(tmp_path, packed):
    root = layout(tmp_path / "cifar", {"train": 4, "test": 2})
    bad = root / "train" / "ship" / "0002.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    path = archive(root, tmp_path / "c.tar.xz") if packed else root
    with pytest.raises(DataError, match=r"train/ship/0002\.jpg"):
        load_data(f"cifar10:{path}")
    with pytest.warns(UserWarning, match=r"train/ship/0002\.jpg"):
        data = load_data(f"cifar10:{path}", on_bad_picture="skip")
    assert (data.num_train, data.num_test) == (7, 4)


@pytest.mark.nightly
def test_real_cifar10_is_whole(tmp_path):
    if not CIFAR.exists():
        pytest.skip(f"CIFAR-10 is not at {CIFAR}; put cifar10.tar.xz there to run this test")
    data = load_data(f"cifar10:{CIFAR}")
    assert (data.num_train, data.num_test, data.num_classes) == (50_000, 10_000, 10)
    assert np.bincount(data.train.labels).tolist() == [5_000] * 10
    assert np.bincount(data.test.labels).tolist() == [1_000] * 10
    assert np.allclose(data.train.pixels.mean(axis=(0, 2, 3)) / 255, data.mean, atol=2e-3)


# ---- folders of pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_imagefolder_takes_its_own_held_out_pictures(tmp_path, held_out):
    root = layout(tmp_path, {"train": 5, held_out: 2}, size=(40, 30))
    data = load_data(f"imagefolder:{root}", input_shape=(3, 16, 16))
    assert (data.num_train, data.num_test, data.classes) == (10, 4, ("cat", "ship"))
    assert data.test_batch([0, 3])[0].shape == (2, 3, 16, 16)


def test_one_folder_is_split_four_to_one_by_class_and_stays_split(tmp_path):
    root = layout(tmp_path, {"": 10})
    data, again = (load_data(f"imagefolder:{root}", input_shape=(3, 16, 16)) for _ in range(2))
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.array_equal(data.test.pixels, again.test.pixels)


def test_pictures_decoded_when_asked_equal_pictures_in_memory(tmp_path):
    root = layout(tmp_path, {"train": 3, "test": 2}, size=(50, 40))
    eager = load_data(f"imagefolder:{root}", input_shape=(3, 24, 24)).train
    files = sorted((root / "train").rglob("*.jpg"))
    lazy = FolderPictures(files=tuple(files), labels=np.array([0, 0, 0, 1, 1, 1]), shape=(3, 24, 24))
    assert isinstance(eager, ArrayPictures)
    for mine, its in zip(lazy.read([4, 1]), eager.read([4, 1]), strict=True):
        assert np.array_equal(mine, its)


def test_lazy_pictures_leave_a_bad_one_out_of_the_batch(tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(picture(0))
    bad.write_bytes(b"not a picture")
    lazy = FolderPictures(files=(good, bad), labels=np.array([0, 1]), shape=(1, 8, 8), on_bad_picture="skip")
    with pytest.warns(UserWarning, match=r"bad\.jpg"):
        pixels, labels = lazy.read([0, 1])
    assert pixels.shape == (1, 1, 8, 8)
    assert labels.tolist() == [0]
    with pytest.warns(UserWarning, match=r"bad\.jpg"), pytest.raises(DataError, match="none of the 1 picture of"):
        lazy.read([1])


def test_class_only_in_the_test_pictures_is_refused(tmp_path):
    root = layout(tmp_path, {"train": 2, "val": 2})
    (root / "val" / "zebra").mkdir()
    with pytest.raises(DataError, match="zebra"):
        load_data(f"imagefolder:{root}")


# ---- user data and refusals -----------------------------------------------------------------------------------------


def test_arrays_from_a_users_factory(tmp_path, monkeypatch):
    (tmp_path / "my_pictures.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    r = np.random.default_rng(0)\n"
        "    x = r.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)\n"
        "    return x[:8], np.arange(8) % 3, x[8:], np.arange(4) % 3\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load_data("my_pictures:make", input_shape=(3, 16, 16))
    assert (data.num_train, data.num_test, data.num_classes) == (8, 4, 3)
    assert data.test_batch([0])[0].shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match="returned int"):
        load_data("my_pictures:wrong")


def test_inputs_of_a_users_factory_need_not_be_pictures(tmp_path, monkeypatch):
    (tmp_path / "my_echoes.py").write_text(
        "import numpy as np\n"
        "from halp_trt.tasks.dataset import DataSet\n"
        "class Echoes:\n"
        "    def __len__(self):\n"
        "        return 4\n"
        "    def read(self, indices):\n"
        "        return np.full((len(indices), 5, 8, 8), -7.5, np.float32), np.asarray(indices) % 2\n"
        "def floats():\n"
        "    return DataSet(name='echoes', train=Echoes(), test=Echoes(), classes=('a', 'b'), input_shape=(5, 8, 8),\n"
        "                   mean=(0.5,), std=(0.2,))\n"
        "def five():\n"
        "    return (np.full((4, 5, 8, 8), 51, np.uint8), np.arange(4) % 2) * 2\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load_data("my_echoes:floats", input_shape=(5, 8, 8))
    assert (data.train_batch([0, 1])[0] == -7.5).all(), "numbers come as they are"
    with pytest.raises(DataError, match="1 or 3 channels"):
        load_data("my_echoes:floats", input_shape=(6, 8, 8))
    assert load_data("my_echoes:five", input_shape=(5, 4, 4)).train_batch([0])[0].shape == (1, 5, 4, 4)
    for asked in (3, 6):
        with pytest.raises(DataError, match=f"pictures of 5 channels and the network reads {asked}; expected as many"):
            load_data("my_echoes:five", input_shape=(asked, 8, 8))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("1 / 0", r"'bad_pictures:make' failed \(ZeroDivisionError"),
        ("([[1], [1, 2]], [0, 1], p, y)", "pictures of several shapes"),
        ("(p, ['cat', 'dog'] * 2, p, y)", "labels of type <U3; expected whole numbers"),
        ("(p, y - 1, p, y)", "labels from -1 to 0; expected 0, 1, 2"),
        ("(p, y * 10**12, p, y)", "labels from 0 to 1000000000000"),
        ("(p, y, np.zeros((4, 3, 9, 9), np.uint8), y)", r"pictures \(1, 8, 8\) and test pictures \(3, 9, 9\)"),
    ],
)
def test_a_factory_that_goes_wrong_is_one_sentence(tmp_path, monkeypatch, made, message):
    arrays = "import numpy as np\np, y = np.zeros((4, 1, 8, 8), np.uint8), np.arange(4) % 2\n"
    (tmp_path / "bad_pictures.py").write_text(f"{arrays}def make():\n    return {made}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_pictures", raising=False)
    with pytest.raises(DataError, match=message):
        load_data("bad_pictures:make")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("banana", "not known"),
        ("mnist:/x", "not known"),
        ("cifar10", "needs a path"),
        ("digits:/x", "takes no path"),
        ("cifar10:/no/such/place", "not at /no/such/place"),
        ("imagefolder:/no/such/place", "does not exist"),
        ("no_such_module:make", "cannot be imported"),
        ("json:nothing", "no callable"),
    ],
)
def test_bad_sources_are_refused_with_a_sentence(source, message):
    with pytest.raises(DataError, match=message):
        load_data(source)


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        load_data(f"imagefolder:{tmp_path}")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"neither val/ nor test/|holds no picture"):
        load_data(f"imagefolder:{tmp_path}")
    with pytest.raises(DataError, match="holds no picture"):
        load_data(f"cifar10:{tmp_path}")


def test_one_picture_of_each_class_leaves_none_to_test_with(tmp_path):
    with pytest.raises(DataError, match="needs training and test pictures, got 2 and 0"):
        load_data(f"imagefolder:{layout(tmp_path, {'': 1}, classes=('cat', 'dog'))}", input_shape=(3, 8, 8))


def test_a_class_folder_without_pictures_is_warned_about(tmp_path):
    root = layout(tmp_path, {"": 5})
    (root / "zebra").mkdir()
    with pytest.warns(UserWarning, match="zebra holds no picture"):
        assert load_data(f"imagefolder:{root}", input_shape=(3, 8, 8)).classes[-1] == "zebra"


def test_pictures_of_16_bits_are_scaled_and_of_32_refused(tmp_path):
    pixels = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    assert np.array_equal(decode(tmp_path / "deep.png", "deep", (1, 8, 8))[0], pixels // 256)
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "deeper.tiff")
    with pytest.raises(DataError, match=r"deeper cannot be read .*32-bit numbers"):
        decode(tmp_path / "deeper.tiff", "deeper", (1, 8, 8))


def test_single_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="two classes"):
        load_data(f"imagefolder:{layout(tmp_path, {'': 5}, classes=('cat',))}", input_shape=(3, 8, 8))


def test_input_shape_that_is_no_picture_is_refused():
    with pytest.raises(DataError, match="1 or 3 channels"):
        load_data("digits", input_shape=(4, 8, 8))
