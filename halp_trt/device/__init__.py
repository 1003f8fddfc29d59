"""The code that runs on the device itself: timing, CUDA, conditions and TensorRT plans.

Python 3.8, its standard library and numpy suffice, so this folder works as it stands on a Jetson. It imports nothing of
halp_trt but itself and returns plain tuples; ``halp_trt.timing`` makes measurements of them.
"""
