"""Accuracy of one trained network in fp32, fp16 and int8 through ONNX Runtime: one JSON with all results.

The graphs are those that TensorRT is given, and for int8 also the one for ONNX Runtime's own kernels:

    python benchmarks/precision.py --model resnet20 --weights WEIGHTS --data cifar10:PATH

The result lands in benchmarks/results/precision.json.
"""

from __future__ import annotations

