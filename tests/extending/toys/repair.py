"""A repair of one's own: the last layer's bias is shifted until the outputs are the dense network's on average."""

import torch

from halp_trt.models.repair import REPAIRS, Repairing


def recentred(module, *, dense, plan, sample):
    """Shifts the bias of the last linear layer, in place."""
    last = [part for part in module.modules() if isinstance(part, torch.nn.Linear)][-1]
    module.eval(), dense.eval()
    with torch.no_grad():
        missing = torch.cat([dense(pictures) - module(pictures) for pictures in sample.fit()])
        last.bias += missing.mean(0)


REPAIRS["recentred"] = Repairing(ways=(recentred,))
