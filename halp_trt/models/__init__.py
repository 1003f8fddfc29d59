"""The PyTorch side of a network: sources and weights, tracing, saliency, masks and slimming."""
