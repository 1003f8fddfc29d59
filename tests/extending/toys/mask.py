"""A mask of one's own: removed channels fade away instead of vanishing, and a later step may keep them again."""

import torch

from halp_trt.models.masks import MASKS
from halp_trt.models.positions import dead_positions, named_tensors


class Fading:
    returns_channels = True

    def apply(self, module, plan, optimizer=None):
        """Leaves all as it is; what was removed fades while the network is trained."""

    def after_backward(self, module, plan, optimizer=None):
        """Leaves the gradients as they are, so that a faded channel may grow again."""

    def after_update(self, module, plan, optimizer=None):
        tensors = named_tensors(module)
        with torch.no_grad():
            for axis in plan.graph.parameters:
                dead = dead_positions(tensors, axis, plan)
                faded = 0.8 * tensors[axis.parameter].index_select(axis.axis, dead)
                tensors[axis.parameter].index_copy_(axis.axis, dead, faded)


MASKS["fading"] = Fading()
