"""Pages in a real browser: nothing fails, nothing is cut off, all is drawn and readable, and points tell numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns, TimedLayer
from halp_trt.report.page import Evidence, render
from halp_trt.solvers.answer import Sweep
from halp_trt.specs import Budget
from halp_trt.workflows.plan import PlanRequest, sweep
from halp_trt.workflows.show import Opened, open_artefact, page_of
from tests.report.histories import history
from tests.report.test_page import WHOLE
from tests.report.values import EXAMPLES, METRICS

ROOT = Path(__file__).parents[2]
LUT = next((ROOT / "luts").glob("*.jsonl"))
CHECKS = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")


def frontier(folder: Path) -> Sweep:
    """The frontier of a small planning instance."""
    table = [[0, 0, 0], [0, 20, 30], [0, 30, 60]]
    layers = [
        {"name": "stem", "reads": None, "latency_us": [0, 50, 80], "saliency": [0, 10, 15]},
        {"name": "body", "reads": ["stem"], "latency_us": table, "saliency": [0, 5, 8]},
        {"name": "head", "reads": ["body"], "latency_us": table, "saliency": [0, 9, 12]},
    ]
    path = folder / "instance.json"
    path.write_text(json.dumps({"layers": layers, "groups": [["stem"], ["body"], ["head"]], "choices": [3, 3, 3]}))
    return sweep(PlanRequest(source=path, budget=Budget(fraction=1.0), solver="exact"), 0.3, 1.0)


def _queries(folder: Path) -> str:
    run = QueryRun(latencies_us=tuple(900.0 + number % 17 for number in range(400)), seconds=0.4)
    return page_of(Opened(title="times.json", value=QueryRuns(runs=(run, run))))


def _layers(folder: Path) -> str:
    layers = tuple(TimedLayer(name=f"/layer{n}/a {'long ' * 20}name <$x$>", mean_us=1.0 + n) for n in range(30))
    return page_of(Opened(title="profile", value=LayerProfiles(profiles=(LayerProfile(num_runs=9, layers=layers),))))


PAGES: dict[str, Callable[[Path], str]] = {
    "report": lambda folder: render(WHOLE),
    "examples": lambda folder: render(Evidence(title="examples", examples=EXAMPLES)),
    "training": lambda folder: render(Evidence(title="a training", metrics=METRICS)),
    "table": lambda folder: page_of(open_artefact(LUT)),
    "frontier": lambda folder: page_of(Opened(title="Frontier", value=frontier(folder))),
    "history": lambda folder: page_of(Opened(title="history.jsonl", value=history())),
    "times": _queries,
    "profile": _layers,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium was found, so no page was opened: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install 'halp-trt[dev]'")
    assert selenium is not None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of each page, made when it is asked for."""
    folder = tmp_path_factory.mktemp("pages")

    def page(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(PAGES[name](folder), encoding="utf-8")
        return path

    return page


def lay_out(browser: Any, width: int, mode: str) -> None:
    """Sets the width of the window, and light or dark mode."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    features = [{"name": "prefers-color-scheme", "value": mode}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requests_of(browser: Any) -> list[str]:
    """The addresses that were asked for since the last call, and what failed."""
    found = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
        elif message["method"] == "Network.loadingFailed":
            found.append(f"failed: {message['params']['errorText']}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_readable_and_alone(browser: Any, pages: Callable[[str], Path], name: str) -> None:
    requests_of(browser)
    browser.get(pages(name).as_uri())
    wrong = []
    for width in (360, 1280):
        for mode in ("light", "dark"):
            lay_out(browser, width, mode)
            wrong += [f"{width} px, {mode}: {one}" for one in browser.execute_script(CHECKS)]
    assert wrong == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = [url for url in requests_of(browser) if not url.startswith("data:")]
    assert asked == [pages(name).as_uri()]


@pytest.mark.slow
def test_the_checks_find_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<style>:root { --line: #eee } body { background: #fff }</style><main>"
        "<p style='color: #999'>faint</p><p style='width: 2000px'>wide</p>"
        "<figure><svg width='300' height='100'><text x='280' y='50'>outside</text>"
        "<path d='M0 0L50 50' style='stroke: #ddd'/></svg></figure>"
        "<figure><svg width='300' height='100'></svg></figure></main>"
    )
    lay_out(browser, 360, "light")
    browser.get(page.as_uri())
    wrong = browser.execute_script(CHECKS)
    found = ("px wide", "'faint' has a contrast", "'wide' is cut off", "'outside' is cut off", "a line of", "no marks")
    assert [any(part in one for one in wrong) for part in found] == [True] * len(found), wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report", "output channels"),
        ("training", "learning rate"),
        ("table", "±"),
        ("frontier", "saliency"),
        ("history", "images/s"),
        ("times", "median"),
    ],
)
def test_a_point_tells_its_numbers(browser: Any, pages: Callable[[str], Path], name: str, expected: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    lay_out(browser, 1280, "light")
    browser.get(pages(name).as_uri())
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    mark = browser.find_elements("css selector", "svg .tip")[-1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    wait = WebDriverWait(browser, 10)

    def is_told_under_the_pointer(_: Any) -> bool:
        # a pointer that lies there already, since the page before, would not move
        ActionChains(browser).move_to_element_with_offset(mark, 0, 60).move_to_element(mark).perform()
        return expected in tip.text

    assert wait.until(is_told_under_the_pointer)
    assert tip.rect["x"] >= 0
    assert tip.rect["x"] + tip.rect["width"] <= 1280
    figure = browser.execute_script("return arguments[0].ownerSVGElement", mark)
    browser.execute_script(
        "arguments[0].dispatchEvent(new PointerEvent('pointerleave', {pointerType: 'mouse'}))", figure
    )
    assert wait.until(lambda _: not tip.is_displayed())
    browser.execute_script("arguments[0].focus()", figure)
    ActionChains(browser).send_keys(Keys.END).perform()
    assert wait.until(lambda _: expected in tip.text)
    last = tip.text
    ActionChains(browser).send_keys(Keys.ARROW_LEFT).perform()
    assert wait.until(lambda _: expected in tip.text and tip.text != last)
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert wait.until(lambda _: not tip.is_displayed())
