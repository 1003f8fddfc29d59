"""import-lut and export-lut: both forms there and back, failures that stay failures, and one sentence for bad files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halp_trt.errors import ArtefactError, MissingLatencyError
from halp_trt.latency import LatencyTable, Origin
from halp_trt.specs import LayerSpec, Measurement
from halp_trt.store import CSV_FORMS, create_csv, read_csv, read_table, save
from halp_trt.store.csv_numbers import is_failure, microseconds, milliseconds
from halp_trt.store.csv_plain import LAYER, MEASURED
from halp_trt.workflows.csv_tables import Named, import_tables
from tests.test_store import TARGET, layer_specs

Verb = Callable[..., Result]
HEAD = "kind,batch,in_channels,height,width,out_channels,kernel,stride,residual,latency_ms"
ROWS = """\
depthwise,1,8,5,5,8,3,1,0,0.0229376
regular,1,64,56,56,64,1,1,0,0.0123
regular,1,64,56,56,64,3,1,1,-1
regular,32,64,56,56,64,3,1,1,0.132608
regular,32,64,56,56,128,3,2,0,0
"""
NAMED = ("--device", "Tesla V100", "--precision", "fp16")
REAL = Path(__file__).parents[3] / "shared" / "data" / "tensorrt-v100" / "v100.tar.xz"
real = pytest.mark.skipif(not REAL.is_file(), reason=f"the public latencies are not in {REAL}; nothing to read")


@pytest.fixture
def public(folder: Path) -> Path:
    """A file in the form of public tables."""
    path = folder / "public.csv"
    path.write_text(f"{HEAD}\n{ROWS}")
    return path


# ---- single convolutions --------------------------------------------------------------------------------------------


def test_convolutions_become_tables_of_one_batch_size(halp_trt: Verb, folder: Path, public: Path) -> None:
    for batch in (1, 32):
        done = halp_trt(
            "import-lut", public, *NAMED, "--batch", batch, "--out", f"b{batch}.jsonl", "--licence", "Apache-2.0"
        )
        assert done.exit_code == 0, done.output
    table = read_table(folder / "b1.jsonl")
    assert (table.target.device, table.target.precision, table.target.batch_size) == ("Tesla V100", "fp16", 1)
    assert [row.latency_us for row in table.rows.values()] == [22.9376, 12.3]
    depthwise, point = table.rows
    assert (depthwise.conv_groups, depthwise.padding, point.padding) == (8, (1, 1, 1, 1), (0, 0, 0, 0))
    (origin,) = table.origins
    assert (origin.file, origin.licence, origin.num_rows, origin.num_failures) == ("public.csv", "Apache-2.0", 2, 1)
    assert "licence Apache-2.0" in done.output
    back = halp_trt("export-lut", "b1.jsonl", "b32.jsonl", "--form", "convolutions", "--out", "back.csv")
    assert back.exit_code == 0, back.output
    assert (folder / "back.csv").read_text() == f"{HEAD}\n{ROWS}".replace("128,3,2,0,0\n", "128,3,2,0,-1\n")


def test_failures_are_kept_and_never_looked_up(halp_trt: Verb, folder: Path, public: Path) -> None:
    assert halp_trt("import-lut", public, *NAMED, "--batch", 1, "--out", "b1.jsonl").exit_code == 0
    table = read_table(folder / "b1.jsonl")
    (failed,) = table.failed
    assert failed not in table.rows
    with pytest.raises(MissingLatencyError, match=r"has a failure for Conv\+Add 3x3 64->64 .* \(latency_ms -1\)"):
        table.latency_us(failed)
    shown = json.loads(halp_trt("show", "b1.jsonl", "--json").stdout)
    assert [one["failure"] for one in shown["failures"]] == ["latency_ms -1"]
    assert "failed, without a latency: 1 layers, the first Conv+Add 3x3" in halp_trt("show", "b1.jsonl").stdout


@pytest.mark.parametrize("cell", ["-1", "-0.5", "0", "0.0", "NaN", "nan", "inf", "", " "])
def test_what_is_no_latency_is_a_failure(cell: str) -> None:
    assert is_failure(cell)
    assert not is_failure("0.0001")


def test_files_of_one_target_merge_and_the_last_row_counts(halp_trt: Verb, folder: Path, public: Path) -> None:
    more = (
        f"{HEAD}\nregular,1,64,56,56,64,1,1,0,0.011\nregular,1,64,56,56,64,3,1,1,0.02\nregular,1,64,56,56,32,1,1,0,-1\n"
    )
    (folder / "more.csv").write_text(more)
    done = halp_trt("import-lut", public, "more.csv", *NAMED, "--batch", 1, "--out", "both.jsonl")
    assert done.exit_code == 0, done.output
    table = read_table(folder / "both.jsonl")
    assert sorted(row.latency_us for row in table.rows.values()) == [11.0, 20.0, 22.9376]
    assert [spec.out_channels for spec in table.failed] == [32]
    assert [origin.file for origin in table.origins] == ["public.csv", "more.csv"]
    for name, path in (("a", public), ("b", folder / "more.csv")):
        assert halp_trt("import-lut", path, *NAMED, "--batch", 1, "--out", f"{name}.jsonl").exit_code == 0
    assert halp_trt("merge-luts", "a.jsonl", "b.jsonl", "--out", "merged.jsonl").exit_code == 0
    assert read_table(folder / "merged.jsonl") == table


@real
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_public_rows_come_back_to_the_letter(precision: str, tmp_path: Path) -> None:
    with tarfile.open(REAL) as archive:
        file = archive.extractfile(f"v100-tensorrt-{precision}.csv")
        assert file is not None
        lines = file.read().replace(b"\r\n", b"\n").splitlines(keepends=True)
    part = tmp_path / "part.csv"
    part.write_bytes(b"".join([lines[0], *sorted_part(lines[1::151])]))
    named = Named(fields={"device": "Tesla V100", "precision": precision})
    for batch in (1, 32, 64, 128):
        import_tables([part], tmp_path / f"{batch}.jsonl", replace(named, batch_size=batch))
    tables = [read_table(tmp_path / f"{batch}.jsonl") for batch in (1, 32, 64, 128)]
    assert sum(len(table.failed) for table in tables) == sum(
        line.endswith(b",-1\n") for line in part.read_bytes().splitlines(True)
    )
    create_csv(tmp_path / "back.csv", tables, "convolutions")
    assert (tmp_path / "back.csv").read_bytes() == part.read_bytes()


def sorted_part(lines: list[bytes]) -> list[bytes]:
    """Rows as an export sorts them."""
    return sorted(lines, key=lambda line: (line.split(b",")[0], *map(int, line.split(b",")[1:-1])))


# ---- the plain form ------------------------------------------------------------------------------------------------


def test_every_field_of_a_layer_and_of_a_latency_has_a_column() -> None:
    assert list(LAYER) == [*LayerSpec.__dataclass_fields__]
    assert list(MEASURED) == [*Measurement.__dataclass_fields__]


positive = st.floats(1e-3, 1e9)
measured = st.builds(
    Measurement, latency_us=positive, p10_us=positive, p90_us=positive, num_samples=st.integers(1, 99),
    variation=st.floats(0, 9), doubt=st.text(max_size=9), footprint_bytes=st.integers(0, 2**40),
)  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.dictionaries(layer_specs, measured, min_size=1, max_size=4),
    failed=st.dictionaries(layer_specs, st.text(min_size=1, max_size=9), max_size=2),
)
def test_the_plain_form_loses_nothing(
    rows: dict[LayerSpec, Measurement], failed: dict[LayerSpec, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plain")
    origins = (Origin(file="a.csv", sha256="ab", source='there, "here"', num_rows=3),)
    table = LatencyTable(target=TARGET, rows=rows, failed=failed, origins=origins)
    create_csv(folder / "t.csv", [table], "plain")
    back = import_tables([folder / "t.csv"], folder / "t.jsonl", Named(fields={}))
    assert back == table == read_table(folder / "t.jsonl")


def test_a_file_written_by_hand_needs_few_columns(halp_trt: Verb, folder: Path) -> None:
    (folder / "hand.csv").write_text(
        "operator,in_channels,out_channels,in_size,kernel_size,epilogue,latency_us\n"
        "Conv,64,128,56x56,3x3,Relu,41.5\nGemm,512,10,,,,7\nConv,8,8,5x5,1x1,,NaN\n"
    )
    done = halp_trt("import-lut", "hand.csv", *NAMED, "--batch", 4, "--out", "hand.jsonl", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["num_rows"], found["num_failures"], found["target"]["batch_size"]) == (2, 1, 4)
    conv, _ = read_table(folder / "hand.jsonl").rows
    assert (conv.padding, conv.stride, conv.dilation, conv.bias, conv.epilogue) == (
        (1, 1, 1, 1), (1, 1), (1, 1), True, ("Relu",)
    )  # fmt: skip


def test_a_table_goes_out_and_comes_back(halp_trt: Verb, folder: Path) -> None:
    row = Measurement(latency_us=1 / 3, p10_us=0.3, p90_us=0.4, num_samples=9)
    table = LatencyTable(target=TARGET, rows={LayerSpec(operator="Conv", in_channels=8, out_channels=4): row})
    save(table, folder / "t.jsonl")
    assert halp_trt("export-lut", "t.jsonl", "--out", "t.csv").exit_code == 0
    assert halp_trt("import-lut", "t.csv", "--out", "again.jsonl").exit_code == 0
    assert read_table(folder / "again.jsonl").rows == table.rows
    assert read_table(folder / "again.jsonl").target == TARGET
    assert halp_trt("export-lut", "again.jsonl", "--out", "t.csv").exit_code == 2
    other = halp_trt("import-lut", "t.csv", "--device", "another", "--out", "x.jsonl")
    assert other.exit_code == 2
    assert "is of device 'a processor', not 'another'" in other.stderr


@settings(deadline=None)
@given(us=st.floats(1e-6, 1e12))
def test_milliseconds_keep_every_digit(us: float) -> None:
    assert microseconds("latency_ms", milliseconds(us)) == us


# ---- bad files ------------------------------------------------------------------------------------------------------

GOOD = "regular,1,64,56,56,64,1,1,0,0.0123"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no heading"),
        (f"{HEAD}\n", "no latency"),
        (f"{HEAD}\n{GOOD}\nregular,1,64,56,56,64,1,1,0\n", "row 3 has 9 cells, and the heading has 10"),
        (f"{HEAD}\n\n{GOOD.replace('64', 'x')}\n", "row 3: in_channels is 'x', expected a whole number"),
        (f"{HEAD}\n{GOOD.replace('0.0123', 'fast')}\n", "row 2: latency_ms is 'fast', expected a number"),
        (f"{HEAD}\n{GOOD.replace('0.0123', '1e300')}\n", "row 2: latency_ms is '1e300', expected at most 1e+12"),
        (f"{HEAD}\n{GOOD.replace('regular', 'grouped')}\n", "row 2: kind is 'grouped', expected regular or depthwise"),
        (f"{HEAD}\n{GOOD.replace('1,1,0', '2,1,0')}\n", "row 2: kernel is 2, expected an odd size"),
        (f"{HEAD}\n{GOOD.replace('64', '0')}\n", "row 2: in_channels is 0, expected 1 to 2.14748e+09"),
        (f"{HEAD}\n{GOOD.replace('1,0,0.01', '1,2,0.01')}\n", "row 2: residual is '2', expected 0 or 1"),
        (f"{HEAD}\ndepthwise,1,8,5,5,16,3,1,0,1\n", "row 2: a depthwise layer of 8 channels writes 16"),
        (HEAD.replace(",", ";") + "\n", "row 1 separates its cells with semicolons"),
        (f"{HEAD},batch\n", "has the column 'batch' twice"),
        (f"{HEAD},speed\n", "the column 'speed' is none of its own"),
        (HEAD.replace(",stride", "") + "\n", "the column 'stride' is missing"),
        ("operator,in_channels,out_channels\n", "the column 'latency_us' is missing"),
        (f'{HEAD}\n{GOOD}\n"regular,1', "row 3 is no line of comma-separated values"),
        (
            "operator,in_channels,out_channels,bias,latency_us\nConv,8,8,maybe,3\n",
            "row 2: bias is 'maybe', expected true",
        ),
        ("operator,in_channels,out_channels,operands,latency_us\nAdd,8,8,[,3\n", "row 2: operands is no JSON"),
        ('# target {"device": 3}\noperator,in_channels,out_channels,latency_us\n', "row 1: Target lacks its field"),
    ],
)
def test_bad_files_are_one_sentence_with_the_row(halp_trt: Verb, folder: Path, text: str, words: str) -> None:
    (folder / "bad.csv").write_text(text)
    refused = halp_trt("import-lut", "bad.csv", *NAMED, "--batch", 1, "--out", "bad.jsonl")
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (folder / "bad.jsonl").exists()


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "bad.csv").write_bytes(b"kind,\xff\xfe\n")
    with pytest.raises(ArtefactError, match="byte 5 is not UTF-8"):
        read_csv(folder / "bad.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "fp16", "--batch", 1), "does not tell its device; name it with --device"),
        (("--device", "V100", "--batch", 1), "does not tell its precision; name it with --precision"),
        (NAMED, "has rows of batch sizes 1, 32; choose one with --batch"),
        ((*NAMED, "--batch", 2), "has no row of batch size 2; it has 1, 32"),
    ],
)
def test_a_target_that_is_not_told_is_asked_for(
    halp_trt: Verb, public: Path, options: tuple[object, ...], words: str
) -> None:
    refused = halp_trt("import-lut", public, *options, "--out", "t.jsonl")
    assert refused.exit_code == 2
    assert words in refused.stderr


def test_layers_that_a_form_cannot_hold_are_refused(halp_trt: Verb, folder: Path) -> None:
    row = Measurement(latency_us=1.0, p10_us=1.0, p90_us=1.0, num_samples=9)
    for name, batch in (("a", 1), ("b", 2)):
        target = replace(TARGET, batch_size=batch)
        save(
            LatencyTable(target=target, rows={LayerSpec(operator="Gemm", in_channels=8, out_channels=4): row}),
            folder / f"{name}.jsonl",
        )
    refused = halp_trt("export-lut", "a.jsonl", "--form", "convolutions", "--out", "a.csv")
    assert refused.exit_code == 2
    assert "Gemm 8->4 is no square convolution" in refused.stderr
    assert "holds one table, got 2" in halp_trt("export-lut", "a.jsonl", "b.jsonl", "--out", "a.csv").stderr
    assert set(CSV_FORMS) == {"plain", "convolutions"}
