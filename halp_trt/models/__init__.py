"""The PyTorch side: model sources, data sets, training, saliency, tracing, masks and slimming."""
