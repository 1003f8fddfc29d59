"""The user's own code: run if the user names it, and whatever it does is one error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from halp_trt.errors import DataError, HalpError, ModelError, UsageError
from halp_trt.models.factories import Recorded, check_named, import_factory
from halp_trt.models.sources import is_own_network, load_model
from halp_trt.store import save
from halp_trt.tasks.data import is_own_data, load_data
from halp_trt.workflows.bench.process import run_process
from halp_trt.workflows.bench.worker import ENGINE, Job
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import load_pictures, network_of
from halp_trt.workflows.settings import Settings
from tests.report.values import VERIFICATION

ENDINGS = {
    "sys.exit(3)": "SystemExit: 3",
    "raise SystemExit": "SystemExit: ",
    "raise GeneratorExit": "GeneratorExit",
    "raise Odd('no')": "Odd: no",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with code that leaves a trace when it is run."""
    (tmp_path / "evil.py").write_text("open('trace', 'w').close()\ndef net(): ...\ndef pictures(): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    return tmp_path


@pytest.mark.parametrize("ending", ENDINGS)
def test_code_that_ends_the_program_is_one_error(ending: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "import sys\nclass Odd(BaseException): ...\n"
    (place / "ending.py").write_text(f"{head}def made():\n    {ending}\n")
    (place / "ended.py").write_text(f"{head}{ending}\n")
    for name, load, error in (("made", load_model, ModelError), ("made", load_data, DataError)):
        monkeypatch.delitem(sys.modules, "ending", raising=False)
        with pytest.raises(error, match=rf"'ending:{name}' failed \({ENDINGS[ending]}"):
            load(f"ending:{name}")
        with pytest.raises(error, match=rf"module 'ended' cannot be imported \({ENDINGS[ending]}"):
            load("ended:made")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_and_a_lack_of_memory_are_no_fault_of_the_code(place: Path, kind: type[BaseException]) -> None:
    (place / f"{kind.__name__}.py").write_text(f"def net():\n    raise {kind.__name__}\n")
    with pytest.raises(kind):
        load_model(f"{kind.__name__}:net")


def test_code_that_leaves_the_path_changed_is_no_error(place: Path) -> None:
    (place / "tidy.py").write_text("import os, sys\nsys.path.remove(os.getcwd())\ndef net(): ...\n")
    path = list(sys.path)
    assert callable(import_factory("tidy:net", ModelError))
    assert sys.path == path


def test_a_run_s_file_has_no_code_run(place: Path) -> None:
    run = RunFolder(path=place / "run")
    run.write_settings(Settings.of(model="evil:net", data="evil:pictures"))
    settings = run.read_settings()
    advice = r"evil:net, evil:pictures\), .* repeat the command with --model evil:net --data evil:pictures"
    with pytest.raises(UsageError, match=advice):
        network_of(settings)
    with pytest.raises(UsageError, match="with --data evil:pictures"):
        load_pictures(settings.data)
    with pytest.raises(UsageError, match="with --model evil:net"):
        load_model(settings.network.model)
    with pytest.raises(UsageError, match="with --model evil:net"):
        network_of(settings.changed(data="none"))
    assert not (place / "trace").exists()
    with pytest.raises(HalpError, match="returned NoneType"):
        network_of(settings.changed(model="evil:net", data="none"))
    assert (place / "trace").exists(), "the same text from the user is another matter"


def test_marked_settings_are_written_and_compared_like_others(place: Path) -> None:
    run, again = RunFolder(path=place / "run"), RunFolder(path=place / "again")
    asked = Settings.of(model="evil:net", data="evil:pictures", epochs=3)
    run.write_settings(asked)
    assert run.read_settings() == asked
    again.write_settings(run.read_settings())
    assert again.settings.read_bytes() == run.settings.read_bytes()


def test_networks_of_packages_are_no_code_of_the_run() -> None:
    for source in ("demo", "resnet20", "timm:resnet18", "torchvision:resnet18"):
        assert not is_own_network(source)
        check_named(*[source] if is_own_network(source) else [])
    for source in ("digits", "none", "imagefolder:data", "cifar10:data"):
        assert not is_own_data(source)
    assert is_own_network("os:abort")
    assert is_own_data("os:abort")
    with pytest.raises(UsageError):
        check_named(Recorded("os:abort", "--model"))


def test_a_process_of_the_gate_imports_nothing_from_the_working_folder(place: Path) -> None:
    for name in ("numpy", "onnx", "onnxruntime", "halp_trt", "json", "sitecustomize"):
        (place / f"{name}.py").write_text("open('trace', 'w').close()\n")
    with pytest.raises(HalpError, match=r"missing\.onnx"):
        run_process(Job(runtime="onnxruntime", engines={ENGINE: "missing.onnx"}))
    assert not (place / "trace").exists()


@pytest.mark.slow
def test_the_program_imports_no_package_from_the_working_folder(place: Path) -> None:
    for name in ("jinja2", "matplotlib", "rich", "onnx", "torch"):
        (place / f"{name}.py").write_text("open('trace', 'w').close()\n")
    save(VERIFICATION, place / "verification.json")
    done = subprocess.run(
        [sys.executable, "-m", "halp_trt", "show", "verification.json", "--html", "page.html"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (place / "page.html").exists()
    assert not (place / "trace").exists()
