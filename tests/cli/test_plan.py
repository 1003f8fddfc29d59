"""Planning from the command line: instances, tables with saliency, frontiers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from halp_trt.errors import ArtefactError
from halp_trt.latency import LatencyTable
from halp_trt.planning.network import PlanConstraints, network_problem
from halp_trt.planning.surfaces import surface_from
from halp_trt.solvers.problem import LATENCY
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency
from halp_trt.store import load, save
from tests.solvers.test_instance import SOUND
from tests.strategies import TARGET, exact_measurement, graph_latency_us, graph_of, staircase_us

Verb = Callable[..., Result]
TITAN_V = Path(__file__).parents[3] / "shared/data/titanv/resnet50.json"
KEYS = ["value", "bound", "gap", "latency_us", "budget_us", "seconds", "kept"]


@pytest.fixture
def instance(folder: Path) -> Path:
    """A stem, a residual stage of two blocks, and a head."""
    layers: list[dict[str, Any]] = [
        {"name": "conv1", "reads": None, "latency_us": [0, 50, 80], "saliency": [0, 10, 15]}
    ]
    table = [[0, 0, 0], [0, 20, 30], [0, 30, 60]]
    for block in ("a", "b"):
        layers.append({"name": f"{block}.1", "reads": ["conv1"], "latency_us": table, "saliency": [0, 5, 8]})
        layers.append({"name": f"{block}.2", "reads": [f"{block}.1"], "latency_us": table, "saliency": [0, 4, 6]})
    layers.append({"name": "head", "reads": ["conv1"], "latency_us": table, "saliency": [0, 9, 12]})
    groups = [["conv1", "a.2", "b.2"], ["a.1"], ["b.1"], ["head"]]
    path = folder / "instance.json"
    path.write_text(json.dumps({"layers": layers, "groups": groups, "choices": [3, 3, 3, 3]}))
    return path


@pytest.fixture
def table(folder: Path) -> Path:
    """A measured table of a small network with every pair of widths, its saliency and its graph."""
    graph: ChannelGraph = graph_of([("plain", 24, 0), ("residual", 16, 0)], stem=16)
    saliency = Saliency(scores={g.name: tuple(1.0 + i for i in range(g.num_channels)) for g in graph.prunable_groups})
    rows = {}

    def measured(specs: Any) -> Any:
        rows.update({spec: exact_measurement(staircase_us(spec)) for spec in specs})
        return rows

    ask = PlanConstraints(budgets={LATENCY: 1.0}, steps={group.name: 8 for group in graph.prunable_groups})
    network_problem(PruningPlan.dense(graph), saliency, surface_from(measured), ask)
    save(LatencyTable(target=TARGET, rows=rows), folder / "lut.jsonl")
    save(saliency, folder / "saliency.json")
    save(graph, folder / "graph.json")
    return folder / "lut.jsonl"


@pytest.mark.parametrize("solver", ["halp", "exact", "joint", "joint-blocks"])
def test_the_answer_has_exactly_these_keys(halp_trt: Verb, instance: Path, solver: str) -> None:
    done = halp_trt("plan", instance, "--budget", "80%", "--solver", solver, "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert list(answer) == KEYS
    assert answer["budget_us"] == pytest.approx(0.8 * 380)
    assert answer["latency_us"] <= answer["budget_us"]
    assert answer["value"] <= answer["bound"]
    assert list(answer["kept"]) == ["conv1", "a.1", "b.1", "head"]
    assert answer["kept"]["conv1"] == 2
    assert solver in ("halp", "exact") or answer["gap"] <= 1e-4


def test_dead_blocks_are_only_for_joint_blocks(halp_trt: Verb, instance: Path) -> None:
    joint = json.loads(halp_trt("plan", instance, "--budget", "65%", "--json").stdout)
    assert min(joint["kept"].values()) == 1
    blocks = json.loads(halp_trt("plan", instance, "--budget", "45%", "--solver", "joint-blocks", "--json").stdout)
    assert sorted(blocks["kept"][name] for name in ("a.1", "b.1"))[0] == 0
    refused = halp_trt("plan", instance, "--budget", "45%")
    assert refused.exit_code == 2
    assert "the lowest reachable is" in refused.output


def test_what_must_stay_stays(halp_trt: Verb, instance: Path) -> None:
    frozen = halp_trt("plan", instance, "--budget", "90%", "--frozen", "head", "--least", "a.1=2", "--json")
    kept = json.loads(frozen.stdout)["kept"]
    assert (kept["head"], kept["a.1"]) == (2, 2)
    least = halp_trt("plan", instance, "--budget", "85%", "--solver", "exact", "--least", "1", "--json")
    assert min(json.loads(least.stdout)["kept"].values()) >= 1
    member = halp_trt("plan", instance, "--budget", "90%", "--frozen", "b.2", "--least", "a.1=2", "--json")
    assert json.loads(member.stdout)["kept"]["conv1"] == 2  # b.2 writes what conv1 writes
    half = halp_trt("plan", instance, "--budget", "100%", "--max-prune", "0", "--json")
    assert set(json.loads(half.stdout)["kept"].values()) == {2}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--frozen", "head", "--frozen", "a.1", "--frozen", "b.1"), "it could be met without --frozen"),
        (("--least", "2"), "it could be met without --least"),
        (("--max-prune", "10", "--least", "1"), "it could be met without --max-prune"),
        (("--max-prune", "10", "--least", "2"), "it could be met without --least and --max-prune"),
    ],
)
def test_a_refusal_names_the_limit_that_binds(
    halp_trt: Verb, instance: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    for asked in (("--budget", "65%"), ("--sweep", "50%..65%")):
        refused = halp_trt("plan", instance, *asked, *arguments)
        assert refused.exit_code == 2
        assert "the lowest reachable is 380; " in refused.stderr
        assert refused.stderr.strip().endswith(sentence)


def test_the_text_says_how_good_the_plan_is(halp_trt: Verb, instance: Path) -> None:
    done = halp_trt("plan", instance, "--budget", "70%")
    assert done.exit_code == 0
    assert "proven optimal" in done.stdout
    assert "of dense" in done.stdout


def test_a_sweep_gives_the_frontier_and_its_picture(halp_trt: Verb, instance: Path, folder: Path) -> None:
    done = halp_trt("plan", instance, "--sweep", "50%..100%", "--solver", "joint-blocks", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["dense_us"] == 380
    assert found["seconds"] > 0
    values = [point["value"] for point in found["points"]]
    assert len(values) > 2
    assert values == sorted(set(values))
    assert all(list(point) == KEYS and point["latency_us"] <= point["budget_us"] for point in found["points"])
    assert (folder / found["plot"]).read_text().startswith("<svg")
    refused = halp_trt("plan", instance, "--sweep", "50%..100%", "--plot", "other.png")
    assert refused.exit_code == 2
    assert "end it in .svg" in refused.stderr
    assert not (folder / "other.png").exists()
    text = halp_trt("plan", instance, "--sweep", "50%..100%", "--solver", "exact", "--plot", "other.svg")
    assert "other.svg" in text.stdout
    page = halp_trt("plan", instance, "--sweep", "50%..100%", "--solver", "exact", "--plot", "other.html")
    assert "page: other.html" in page.stdout
    assert "<h1>Frontier of instance.json</h1>" in (folder / "other.html").read_text()
    low = halp_trt("plan", instance, "--sweep", "5%..100%")
    assert "no plan was found below" in low.stdout
    assert "no plan was found below" not in halp_trt("plan", instance, "--sweep", "90%..100%").stdout


def test_a_table_and_a_saliency_file_give_a_pruning_plan(halp_trt: Verb, table: Path, folder: Path) -> None:
    done = halp_trt("plan", table, "--saliency", "saliency.json", "--budget", "60%", "--out", "plan.json", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    plan = load(folder / "plan.json")
    graph = load(folder / "graph.json")
    dense = graph_latency_us(graph, load(table), graph.dense_counts())
    assert answer["budget_us"] == pytest.approx(0.6 * dense)
    assert plan.counts() == answer["kept"]
    assert plan.latency_us == answer["latency_us"] <= answer["budget_us"]
    assert plan.saliency == pytest.approx(answer["value"])


def test_a_plan_without_a_block_is_written_and_shown(halp_trt: Verb, table: Path, folder: Path) -> None:
    asked = ("--saliency", "saliency.json", "--solver", "joint-blocks", "--budget", "45%", "--out", "plan.json")
    answer = json.loads(halp_trt("plan", table, *asked, "--json").stdout)
    plan = load(folder / "plan.json")
    assert plan.removed_blocks == ("b1",)
    assert plan.counts() == answer["kept"]
    assert plan.latency_us == answer["latency_us"] <= answer["budget_us"]
    assert "removed blocks, by their last layer: b1" in halp_trt("show", "plan.json").stdout
    assert halp_trt("show", "plan.json", "--html", "plan.html").exit_code == 0
    held = halp_trt("plan", table, *asked[:4], "--budget", "90%", "--max-prune", "50", "--json")
    assert json.loads(held.stdout)["kept"]["b1.inner"] >= 8


def test_other_resources_are_budgeted_too(halp_trt: Verb, table: Path) -> None:
    free = halp_trt("plan", table, "--saliency", "saliency.json", "--budget", "90%", "--json")
    tight = halp_trt("plan", table, "--saliency", "saliency.json", "--budget", "90%", "--parameters", "40%", "--json")
    assert json.loads(tight.stdout)["value"] < json.loads(free.stdout)["value"]
    unreachable = halp_trt("plan", table, "--saliency", "saliency.json", "--budget", "90%", "--flops", "10")
    assert unreachable.exit_code == 2
    assert "for flops: the lowest reachable is" in unreachable.output
    for senseless in ("", "200%", "-1", "nan", "inf", "٤٠%", "1_000"):
        refused = halp_trt("plan", table, "--saliency", "saliency.json", "--budget", "90%", "--flops", senseless)
        assert (refused.exit_code, "neither a share of up to 100 %" in refused.output) == (2, True)
    linear = halp_trt("plan", table, "--saliency", "saliency.json", "--flops", "10", "--solver", "exact")
    assert "at the present input widths no plan meets the budget of 10 for flops" in linear.output
    assert "or choose the solver joint" in linear.output


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("", (), "is empty; name another file"),
        ('{"layers": ', (), "not whole JSON"),
        ("[1, 2]", (), "expected an object with layers"),
        ('{"schema": "halp-trt/pruning-plan/1", "value": {}}', (), "has schema 'halp-trt/pruning-plan/1'"),
        ('{"groups": []}', (), "no 'layers' in the file"),
        (json.dumps(SOUND).replace("[0, 2, 4]", "[0, 2, NaN]"), (), "NaN is no number"),
        (json.dumps(SOUND).replace("[0, 2, 4]", "[0, -2, 4]"), (), "-2 in latency_us of layer 'b'"),
        (json.dumps(SOUND), ("--budget", "half"), "budget 'half' is not"),
        (json.dumps(SOUND), ("--budget", "120%"), "above 100 %"),
        (json.dumps(SOUND), ("--budget", "1us"), "the lowest reachable is 13"),
        (json.dumps(SOUND), ("--least", "b=3"), "least width 3 of 'b' is above its full width of 1"),
        (json.dumps(SOUND), ("--sweep", "90%..20%"), "no range of shares"),
        (json.dumps(SOUND), ("--sweep", "20..90"), "no range of shares"),
        (json.dumps(SOUND), ("--frozen", "z"), "no channel group or layer 'z'"),
        (json.dumps(SOUND), ("--least", "b"), "least width 'b'"),
        (json.dumps(SOUND), ("--flops", "50%"), "knows latencies alone"),
        (json.dumps(SOUND), ("--saliency", "s.json"), "is no latency table"),
        (json.dumps(SOUND), ("--out", "plan.json", "--budget", "100%"), "can be written with --out"),
        (json.dumps(SOUND), ("--solver", "magic"), "'magic' is not one of"),
        (json.dumps(SOUND), ("--plot", "a.svg"), "only a frontier has a picture"),
        (json.dumps(SOUND), ("--sweep", "50%..90%", "--out", "plan.json"), "can be written with --out"),
        (json.dumps(SOUND), ("--bogus",), "No such option '--bogus'"),
        (json.dumps(SOUND), ("--gap", "-1"), "--gap"),
        (json.dumps(SOUND), ("--gap", "nan"), "'nan' is no finite number"),
        (json.dumps(SOUND), ("--seconds", "nan"), "'nan' is no finite number"),
        (json.dumps(SOUND), ("--least", "=4"), "least width '=4'"),
        (json.dumps(SOUND), ("--flops", ""), "budget '' for flops is neither a share"),
        (json.dumps(SOUND).replace('"b"', '"b\\ud800"'), (), "the name 'b\\ud800' in layer 1"),
        (json.dumps(SOUND).replace('"b"', '"b\\n"'), (), "names of characters that can be printed"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    halp_trt: Verb, folder: Path, text: str, arguments: tuple[str, ...], sentence: str
) -> None:
    (folder / "file.json").write_text(text)
    done = halp_trt("plan", "file.json", *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_what_a_table_lacks_is_named(halp_trt: Verb, table: Path, folder: Path) -> None:
    no_saliency = halp_trt("plan", table)
    assert (no_saliency.exit_code, "--saliency" in no_saliency.stderr) == (2, True)
    wrong = halp_trt("plan", table, "--saliency", "graph.json")
    assert (wrong.exit_code, "expected a Saliency" in wrong.stderr) == (2, True)
    finer = halp_trt("plan", table, "--saliency", "saliency.json", "--width-step", "4")
    assert (finer.exit_code, "has no latency of" in finer.stderr) == (2, True)
    with pytest.raises(ArtefactError):
        load(folder / "nothing.json")


# ---- the real instance ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not TITAN_V.exists(), reason=f"needs {TITAN_V}, which is not part of the project")
@pytest.mark.parametrize(
    ("budget", "solver", "value"),
    [
        ("80%", "joint", 6697589),
        ("55%", "joint", 5923511),
        ("30%", "joint", 4768964),
        ("30%", "joint-blocks", 4813209),
        ("55%", "exact", 5257819),
    ],
)
def test_the_titan_v_instance(halp_trt: Verb, budget: str, solver: str, value: int) -> None:
    """Optima that an integer programme of its own found, too: see benchmarks/results/planning.json."""
    answer = json.loads(halp_trt("plan", TITAN_V, "--budget", budget, "--solver", solver, "--json").stdout)
    assert answer["value"] == answer["bound"] == value
    assert answer["latency_us"] <= answer["budget_us"]
