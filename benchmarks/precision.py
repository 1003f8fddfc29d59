"""Accuracy of one trained network in fp32, fp16 and int8 through ONNX Runtime: one JSON with all results.

The graphs are those that TensorRT is given, and for int8 also the one for ONNX Runtime's own kernels:

    python benchmarks/precision.py --model resnet20 --weights WEIGHTS --data cifar10:PATH

The result lands in benchmarks/results/precision.json.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.precision import Typed, compute_types, to_half
from halp_trt.graphs.quantize import quantize
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.data import DataSet
from halp_trt.models.evaluation import evaluate
from halp_trt.models.trace import trace
from halp_trt.runtimes import get_runtime
from halp_trt.runtimes.tensorrt_bindings import Library
from halp_trt.specs import PruningPlan
from halp_trt.store import sha256_file, write_json
from halp_trt.workflows.folder import Settings
from halp_trt.workflows.stages import calibration_inputs, load_network
