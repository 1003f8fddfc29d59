"""Devices elsewhere: the agent is packed and sent to them, and a runtime that measures there looks like one of ours.

The system's ``ssh`` carries everything: no port is opened and no key is handled here. What runs on the device is
``halp_trt.device.agent``.
"""
