"""All verbs of the command line. They import packages beyond numpy and click only when they run."""

from __future__ import annotations

import click

import halp_trt
from halp_trt.cli.bench_verb import bench
from halp_trt.cli.csv_verbs import export_lut, import_lut
from halp_trt.cli.device_verbs import device
from halp_trt.cli.engine_verbs import deploy, verify
from halp_trt.cli.file_verbs import init, show
from halp_trt.cli.lut_verbs import build_lut, merge_luts
from halp_trt.cli.output import VerbGroup
from halp_trt.cli.plan_verb import plan
from halp_trt.cli.prune_verbs import prune, run

__all__ = ["verbs"]


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(halp_trt.__version__, prog_name="halp-trt")
def verbs() -> None:
    """Latency-aware pruning: a trained network, a latency budget and a device in; a faster engine and the proof out.

    Every verb reads halp.toml in the working folder; options override it, and it overrides what a run was pruned with.
    The option --out names a verb's output. Exit codes: 0 done, 1 a check failed, 2 wrong usage or input, 3 bench
    cannot tell.
    """


for _verb in (
    build_lut, merge_luts, import_lut, export_lut, prune, plan, deploy, verify, bench, run, show, init, device,
):  # fmt: skip
    verbs.add_command(_verb)
