"""A saliency of one's own: the scale of a channel's batch norms (arXiv 1708.06519)."""

from halp_trt.models.saliency import SALIENCIES, Scoring
from halp_trt.models.saliency.members import members_of, scored_members, sum_along, sum_per_channel
from halp_trt.specs import Saliency


class Scale:
    def __init__(self, module, graph):
        self.module, self.graph = module, graph

    def after_backward(self):
        """Reads no gradients."""

    def finish(self):
        scores = {group.name: [0.0] * group.num_channels for group in self.graph.prunable_groups}
        for group, members in scored_members(members_of(self.module, self.graph), self.graph).items():
            for member in members:
                if member.axis.parameter.endswith(".weight"):
                    scales = sum_along(member.parameter.detach().abs(), member.axis.axis)
                    scores[group] += sum_per_channel(scales, member.axis, group, len(scores[group]))
        return Saliency(scores={group: tuple(map(float, found)) for group, found in scores.items()})


SALIENCIES["scale"] = Scoring(make=Scale, needs_gradients=False)
