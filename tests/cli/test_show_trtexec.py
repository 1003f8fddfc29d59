"""``show`` with files of trtexec and with histories: text, JSON, pages, and one sentence for what is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from halp_trt.store import append_history
from tests.report.histories import history

Verb = Callable[..., Result]
QUERIES = [{"startComputeMs": 2.0 * n, "endComputeMs": 2.0 * n + 1, "latencyMs": 1.0 + n % 3} for n in range(40)]


def test_times_are_shown_as_text_json_and_page(halp_trt: Verb, folder: Path) -> None:
    (folder / "times.json").write_text(json.dumps(QUERIES))
    text = halp_trt("show", "times.json")
    assert text.exit_code == 0
    assert text.stdout.startswith("Times of 40 queries by trtexec\nmedian 2.00 ms")
    (run,) = json.loads(halp_trt("show", "times.json", "--json").stdout)["runs"]
    assert run["num_queries"] == 40
    assert run["queries_per_second"] == 40 / 0.079
    assert halp_trt("show", "times.json", "--html", "page.html").exit_code == 0
    assert "Times of 40 queries" in (folder / "page.html").read_text()


def test_damaged_times_are_one_sentence(halp_trt: Verb, folder: Path) -> None:
    (folder / "times.json").write_text(json.dumps(QUERIES)[:-3])
    refused = halp_trt("show", "times.json")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: times.json looks like trtexec's --exportTimes but is damaged (")
    assert refused.stderr.count("\n") == 1


def test_a_history_is_shown_as_text_json_and_page(halp_trt: Verb, folder: Path) -> None:
    append_history(folder / "h.jsonl", history(("net.plan",)).results)
    assert "60 results of 1 engine" in halp_trt("show", "h.jsonl").stdout
    assert len(json.loads(halp_trt("show", "h.jsonl", "--json").stdout)["results"]) == 60
    assert halp_trt("show", "h.jsonl", "--html", "page.html").exit_code == 0
    assert "Throughput over time" in (folder / "page.html").read_text()
