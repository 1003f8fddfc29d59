"""A detector of one's own: an anchor-free network of C2f blocks, SPPF, upsampling and two heads, and how it is read.

Run it from this folder, on pictures with boxes in PASCAL VOC's layout:

    halp-trt run --model yolo_like:network --data voc:PATH --train-rate 0.02 --budget 60%
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIZE, STRIDES, REACHES = 256, (16, 32), ((0.0, 0.25), (0.25, 1.0))


def conv(inside, outside, kernel=1, stride=1):
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.SiLU())


class Bottleneck(nn.Module):
    def __init__(self, width, adds):
        super().__init__()
        self.inner, self.adds = nn.Sequential(conv(width, width, 3), conv(width, width, 3)), adds

    def forward(self, x):
        return x + self.inner(x) if self.adds else self.inner(x)


class C2f(nn.Module):
    """Half of the channels pass, the other half go through bottlenecks, and all of their outputs are joined."""

    def __init__(self, inside, outside, number=1, adds=True):
        super().__init__()
        self.first, self.last = conv(inside, outside), conv((2 + number) * (outside // 2), outside)
        self.blocks = nn.ModuleList(Bottleneck(outside // 2, adds) for _ in range(number))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, dim=1))


class SPPF(nn.Module):
    """A pyramid of maximum pools, one after the other."""

    def __init__(self, width):
        super().__init__()
        self.first, self.last, self.pool = conv(width, width // 2), conv(2 * width, width), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, dim=1))


class YoloLike(nn.Module):
    """Pictures ``[N, 3, 256, 256]`` to ``classes`` ``[N, A, classes]`` and ``boxes`` ``[N, A, 4]`` of A cells."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32), conv(32, 64, 3, 2), C2f(64, 64))
        self.middle = nn.Sequential(conv(64, 128, 3, 2), C2f(128, 128))
        self.deep = nn.Sequential(conv(128, 192, 3, 2), C2f(192, 192), SPPF(192))
        self.up, self.join = nn.Upsample(scale_factor=2), C2f(320, 128, adds=False)
        self.down, self.again = conv(128, 128, 3, 2), C2f(320, 192, adds=False)
        self.heads = nn.ModuleList(
            nn.Sequential(conv(width, 64, 3), nn.Conv2d(64, 4 + num_classes, 1)) for width in (128, 192)
        )
        for head in self.heads:
            nn.init.constant_(head[1].bias[4:], -4.0)  # few cells hold an object
        self.num_classes, self.detection = num_classes, Reader(num_classes)

    def forward(self, pictures):
        middle = self.middle(self.stem(pictures))
        deep = self.deep(middle)
        fine = self.join(torch.cat([self.up(deep), middle], dim=1))
        coarse = self.again(torch.cat([self.down(fine), deep], dim=1))
        rows = [head(x).flatten(2).transpose(1, 2) for head, x in zip(self.heads, (fine, coarse), strict=True)]
        found = torch.cat(rows, dim=1)
        return {"boxes": found[..., :4], "classes": found[..., 4:]}


class Reader:
    """What the raw outputs mean: of each cell the distances to the sides of its object, and a logit for each class."""

    def __init__(self, num_classes):
        self.num_classes = num_classes
        sides = [SIZE // stride for stride in STRIDES]
        grids = [(np.arange(side) + 0.5) / side for side in sides]
        self.centres = np.concatenate([np.stack(np.meshgrid(g, g), -1).reshape(-1, 2) for g in grids]).astype("float32")
        self.level = np.repeat([0, 1], [side * side for side in sides])

    def boxes_of(self, raw):
        distances, centres = F.softplus(raw.float()) / 4, torch.from_numpy(self.centres).to(raw.device)
        return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)

    def loss(self, outputs, boxes, labels):
        found, logits = self.boxes_of(outputs["boxes"]), outputs["classes"].float()
        wanted, overlaps = torch.zeros_like(logits), []
        centres, level = (
            torch.from_numpy(self.centres).to(logits.device),
            torch.from_numpy(self.level).to(logits.device),
        )
        for number, (own, names) in enumerate(zip(boxes, labels, strict=True)):
            for box, name in zip(own, names, strict=True):
                middle, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
                low, high = (torch.tensor([reach[i] for reach in REACHES], device=logits.device)[level] for i in (0, 1))
                off = (centres - middle).abs()
                near = (off < (box[2:] - box[:2]) / 4).all(dim=1) & (side >= low) & (side <= high)
                near[(off.sum(dim=1) + 9.0 * ((side < low) | (side > high))).argmin()] = True  # one at least
                overlap = iou(found[number, near], box)
                wanted[number, near, name] = overlap.detach().clamp(0.1, 1)
                overlaps.append(1 - overlap)
        likely = logits.sigmoid()
        weight = torch.where(wanted > 0, wanted, 0.75 * likely.detach() ** 2)  # varifocal loss, arXiv 2008.13367
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="sum")
        num = max(1, sum(len(one) for one in overlaps))
        return entropy / num + (2 * torch.cat(overlaps).mean() if overlaps else 0)

    def distance(self, outputs, taught):
        theirs = taught["classes"].float().sigmoid()
        weight = theirs.amax(dim=2, keepdim=True)
        boxes = F.smooth_l1_loss(outputs["boxes"].float(), taught["boxes"].float(), reduction="none")
        scores = (outputs["classes"].float().sigmoid() - theirs) ** 2
        return (scores.sum() + (weight * boxes).sum()) / weight.sum().clamp(min=1)

    def read(self, outputs):
        return self.boxes_of(outputs["boxes"]).clamp(0, 1), outputs["classes"].sigmoid()


def iou(boxes, box):
    sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0)
    inside = sides.prod(dim=1)
    return inside / ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (box[2:] - box[:2]).prod() - inside).clamp(min=1e-9)


def network(num_classes=3):
    return YoloLike(num_classes), torch.zeros(1, 3, SIZE, SIZE)
