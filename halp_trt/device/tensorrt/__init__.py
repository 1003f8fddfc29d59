"""TensorRT on the device itself: plans are built and layers measured, for every version from one code path.

Python 3.8 runs it as it stands. It takes plain values; ``halp_trt.runtimes.tensorrt`` makes a runtime of it, and
``work`` what the agent drives.
"""
