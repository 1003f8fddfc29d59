"""The ONNX side: one-layer probes, export, partition and rewriting."""
