"""PyTorch as a runtime: the ONNX graph drawn as eager calls, channels first, or through torch.compile."""
