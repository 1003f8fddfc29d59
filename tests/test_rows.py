"""A registry's row that is none is refused in one sentence, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS, get_masking
from halp_trt.models.saliency import SALIENCIES, Scoring, choose_scoring
from halp_trt.planning import METHODS, Method, get_method
from halp_trt.rows import load_row
from halp_trt.runtimes import RUNTIMES, Entry, get_runtime
from halp_trt.training.optimizer import OPTIMIZERS, get_optimizer
from halp_trt.training.updates import UPDATES, get_update
from tests.extending.conftest import HalpTrt, folder, halp_trt

__all__ = ["folder", "halp_trt"]

SCORING = Scoring(make="halp_trt.models.saliency.taylor:Taylor", needs_gradients=True)
METHOD = Method(step=get_method("joint").step)


def any_value(value: Any) -> Any:
    """The value, without its type."""
    return value


def test_a_text_is_the_place_of_a_value() -> None:
    assert load_row(3) == 3
    assert load_row("halp_trt.rows:load_row") is load_row


@pytest.mark.parametrize("text", ["", ":", "json", "json:", ":dumps", "json:no", "halp_trt.no:x", "no_such:x"])
def test_a_text_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^the row ['\"].*; "):
        load_row(text)


def test_a_package_that_a_module_lacks_is_still_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_row.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_row("needy_row:x")


@pytest.mark.parametrize(
    ("registry", "get", "value"),
    [(METHODS, get_method, METHOD), (SALIENCIES, lambda name: choose_scoring(name, has_data=True), SCORING)],
)
def test_methods_and_saliencies_may_be_texts(
    registry: dict[str, Any], get: Callable[[str], Any], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "METHOD" if registry is METHODS else "SCORING"
    monkeypatch.setitem(registry, "mine", f"{__name__}:{name}")
    assert get("mine") == value


@pytest.mark.parametrize("row", [3, "json:dumps", lambda one: one], ids=["number", "text", "function"])
@pytest.mark.parametrize(
    ("registry", "option"),
    [
        (METHODS, "method"),
        (SALIENCIES, "saliency"),
        (MASKS, "mask"),
        (UPDATES, "update"),
        (OPTIMIZERS, "optimizer"),
        (RUNTIMES, "runtime"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_of_another_kind_is_refused_before_training(
    registry: dict[str, Any], option: str, row: object, halp_trt: HalpTrt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry, "bad", row)
    done = halp_trt("prune", "--runtime", "synthetic", "--out", "run", f"--{option}", "bad")
    assert done.exit_code == 2, done.output
    assert "['bad']" in done.stderr
    assert "Traceback" not in done.output
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("registry", "get", "row", "sentence"),
    [
        (
            METHODS,
            get_method,
            Method(step=any_value(len)),
            r"METHODS\['bad'\]\.step cannot be called with \(current, saliency",
        ),
        (
            SALIENCIES,
            lambda name: choose_scoring(name, has_data=True),
            Scoring(make=any_value(len), needs_gradients=True),
            r"SALIENCIES\['bad'\]\.make cannot be called with \(module, graph\)",
        ),
        (
            MASKS,
            get_masking,
            object(),
            r"MASKS\['bad'\] is of type object, without returns_channels, apply, after_backward",
        ),
        (
            UPDATES,
            get_update,
            lambda optimizer: 0.0,
            r"UPDATES\['bad'\] cannot be called with \(optimizer, gradients\)",
        ),
        (
            OPTIMIZERS,
            get_optimizer,
            lambda groups: None,
            r"OPTIMIZERS\['bad'\] cannot be called with \(groups, settings\)",
        ),
        (RUNTIMES, get_runtime, Entry(make=any_value(len)), r"RUNTIMES\['bad'\]\.make cannot be called with \(\)"),
        (
            RUNTIMES,
            get_runtime,
            Entry(make=any_value(object)),
            r"RUNTIMES\['bad'\]\.make makes is of type object, without name, suffix",
        ),
    ],
)
def test_a_row_of_another_shape_is_refused(
    registry: dict[str, Any],
    get: Callable[[str], Any],
    row: object,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry, "bad", row)
    with pytest.raises(UsageError, match=sentence):
        get("bad")
