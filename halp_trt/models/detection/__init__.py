"""Detectors: networks whose raw outputs are scores and boxes, and the heads that say how these are learnt and read."""
