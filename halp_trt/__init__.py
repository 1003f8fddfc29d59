"""Latency-aware pruning: a trained network, a latency budget and a device in; a faster engine and the proof out.

This module holds what needs numpy alone: values, their files and errors. Everything else is imported from its room:

    from halp_trt.models.trace import trace        # PyTorch
    from halp_trt.graphs.rewrite import rewrite    # ONNX
    from halp_trt.runtimes import get_runtime

The values are listed in data-flow order in ``halp_trt.specs``.
"""

from halp_trt import errors as errors
from halp_trt import specs as specs
from halp_trt.latency import LatencyTable as LatencyTable
from halp_trt.specs import Budget as Budget
from halp_trt.specs import ChannelGraph as ChannelGraph
from halp_trt.specs import EngineRecord as EngineRecord
from halp_trt.specs import LayerSpec as LayerSpec
from halp_trt.specs import Measurement as Measurement
from halp_trt.specs import PruningPlan as PruningPlan
from halp_trt.specs import Saliency as Saliency
from halp_trt.specs import Target as Target
from halp_trt.specs import Verification as Verification
from halp_trt.store import load as load
from halp_trt.store import save as save

__version__ = "0.1.0"
