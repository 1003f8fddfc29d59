"""The networks of benchmarks/zoo.py: classifiers by name, and raw heads of torchvision's detectors and segmenters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from halp_trt.models.sources import import_torchvision

SIDE = 96
"""Height and width of the pictures, unless a network wants others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network of the zoo.

    Attributes:
        source: what ``--model`` takes.
        kind: ``convolutional``, ``transformer``, ``detector``, ``segmenter`` or ``video``.
        side: height and width of its pictures; None takes its own example.
    """

    source: str
    kind: str
    side: int | None = SIDE


_TIMM_CONVOLUTIONAL = """
bat_resnext26ts eca_resnet33ts gcresnet33ts gernet_s mobileone_s0 repvgg_a0 resnet32ts regnetz_b16 convmixer_768_32
convnext_atto convnext_atto_ols convnext_atto_rms convnextv2_atto cs3darknet_s cs3darknet_focus_s cs3edgenet_x
cspresnet50 cspresnext50 cspdarknet53 cspnext_tiny densenet121 densenetblur121d dla34 dla46_c dla46x_c dla60_res2net
dpn48b dpn68 efficientnet_b0 efficientnet_b0_gn efficientnet_b0_g8_gn efficientnet_es efficientnet_lite0
efficientnetv2_rw_t tf_efficientnet_b0 mixnet_s tf_mixnet_s mnasnet_050 mobilenetv1_100 mobilenetv2_050 spnasnet_100
fbnetc_100 mobilenet_edgetpu_100 mobilenetv4_conv_small semnasnet_075 tinynet_e fasternet_t0 ghostnet_050
ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small inception_next_atto lcnetv2_small
mambaout_femto mobilenetv3_small_050 mobilenetv3_large_100 lcnet_050 fbnetv3_b nf_regnet_b0 nf_resnet26 nfnet_l0
eca_nfnet_l0 dm_nfnet_f0 rdnet_tiny regnetx_002 regnety_002 regnetv_040 regnetz_005 repghostnet_050 repvit_m0_9
res2net50_14w_8s res2next50 resnest14d resnet10t resnet18 resnet18d resnet26t resnet50 resnet50_gn resnetblur18
resnetaa34d resnext26ts ecaresnet26t seresnet18 resnetrs50 resnetv2_18 resnetv2_50 resnetv2_50d_gn resnetv2_50d_frn
resnetv2_50d_evos resnetv2_50x1_bit rexnet_100 rexnetr_100 selecsls42 legacy_seresnet18 legacy_seresnext26_32x4d
legacy_xception skresnet18 starnet_s050 tresnet_m vgg11 vgg11_bn vovnet39a ese_vovnet19b_slim_dw xception41
poolformer_s12 poolformerv2_s12 convformer_s18 lowformer_b0
""".split()  # noqa: SIM905 (many names are easier to read as one text)
_TIMM_LARGER = {
    "inception_v3": 160, "inception_v4": 160, "inception_resnet_v2": 160, "pnasnet5large": 96, "nasnetalarge": 96,
}  # fmt: skip
_TIMM_TRANSFORMERS = """
vit_tiny_patch16_224 deit_tiny_patch16_224 swin_tiny_patch4_window7_224 levit_128s efficientvit_b0 efficientvit_m0
efficientformer_l1 efficientformerv2_s0 edgenext_xx_small mobilevit_xxs mobilevitv2_050 xcit_nano_12_p16_224
coatnet_nano_rw_224 pvt_v2_b0 tiny_vit_5m_224 fastvit_t8 pit_ti_224 visformer_tiny mixer_s32_224 resmlp_12_224
botnet26t_256 sequencer2d_s swiftformer_xs
""".split()  # noqa: SIM905 (many names are easier to read as one text)
_TORCHVISION = """
alexnet squeezenet1_0 squeezenet1_1 vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 mobilenet_v2
mobilenet_v3_small mobilenet_v3_large efficientnet_b0 efficientnet_v2_s regnet_y_400mf regnet_x_400mf mnasnet0_5
shufflenet_v2_x0_5 densenet121 googlenet convnext_tiny
""".split()  # noqa: SIM905 (many names are easier to read as one text)
_HEADS = {
    "detector": ("retinanet", "fcos", "ssd300", "ssdlite", "faster_rcnn", "faster_rcnn_mobile"),
    "segmenter": ("fcn", "deeplab", "lraspp"),
    "video": ("r3d", "mc3", "r2plus1d", "s3d"),
}
TWELVE = (
    "timm:resnet10t", "timm:mobilenetv3_small_050", "timm:regnety_002", "timm:ghostnet_050", "timm:convnext_atto",
    "timm:hgnetv2_b0", "timm:res2net50_14w_8s", "timm:tf_mixnet_s", "timm:efficientvit_b0", "timm:rexnet_100",
    "zoo_networks:ssdlite", "zoo_networks:lraspp",
)  # fmt: skip
"""The networks that ``tools/check`` runs."""


def candidates() -> Iterator[Candidate]:
    """All networks of the zoo."""
    for name in _TIMM_CONVOLUTIONAL:
        yield Candidate(source=f"timm:{name}", kind="convolutional")
    for name, side in _TIMM_LARGER.items():
        yield Candidate(source=f"timm:{name}", kind="convolutional", side=side)
    for name in _TORCHVISION:
        yield Candidate(source=f"torchvision:{name}", kind="convolutional")
    yield Candidate(source="torchvision:inception_v3", kind="convolutional", side=160)
    for name in _TIMM_TRANSFORMERS:
        yield Candidate(source=f"timm:{name}", kind="transformer", side=None)
    for name in ("vit_b_16", "swin_t", "maxvit_t"):
        yield Candidate(source=f"torchvision:{name}", kind="transformer", side=None)
    for kind, names in _HEADS.items():
        for name in names:
            yield Candidate(source=f"zoo_networks:{name}", kind=kind, side=None)


# ---- networks without post-processing -------------------------------------------------------------------------------


class RawHeads(nn.Module):
    """A detector of torchvision from the picture to the raw outputs of its heads, without anchors and NMS."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone: nn.Module = detector.backbone
        self.head: nn.Module = detector.head if hasattr(detector, "head") else detector.rpn.head

    def forward(self, x: torch.Tensor) -> Any:
        """The heads' outputs for a picture (1, 3, height, width)."""
        features = self.backbone(x)
        return self.head(list(features.values()) if isinstance(features, dict) else [features])


def _heads(name: str, side: int) -> tuple[nn.Module, torch.Tensor]:
    detection = import_torchvision().models.detection
    return RawHeads(getattr(detection, name)(weights=None, weights_backbone=None)), torch.zeros(1, 3, side, side)


def retinanet() -> tuple[nn.Module, torch.Tensor]:
    """RetinaNet on ResNet-50 with a feature pyramid."""
    return _heads("retinanet_resnet50_fpn", 128)


def fcos() -> tuple[nn.Module, torch.Tensor]:
    """FCOS, whose towers have group norms."""
    return _heads("fcos_resnet50_fpn", 128)


def ssd300() -> tuple[nn.Module, torch.Tensor]:
    """SSD on VGG-16."""
    return _heads("ssd300_vgg16", 300)


def ssdlite() -> tuple[nn.Module, torch.Tensor]:
    """SSDLite on MobileNet-V3."""
    return _heads("ssdlite320_mobilenet_v3_large", 320)


def faster_rcnn() -> tuple[nn.Module, torch.Tensor]:
    """The backbone and the region proposal head of Faster R-CNN."""
    return _heads("fasterrcnn_resnet50_fpn", 128)


def faster_rcnn_mobile() -> tuple[nn.Module, torch.Tensor]:
    """The backbone and the region proposal head of Faster R-CNN on MobileNet-V3."""
    return _heads("fasterrcnn_mobilenet_v3_large_fpn", 128)


def _segmenter(name: str) -> tuple[nn.Module, torch.Tensor]:
    make: Callable[..., nn.Module] = getattr(import_torchvision().models.segmentation, name)
    return make(weights=None, weights_backbone=None), torch.zeros(1, 3, 128, 128)


def fcn() -> tuple[nn.Module, torch.Tensor]:
    """FCN on ResNet-50."""
    return _segmenter("fcn_resnet50")


def deeplab() -> tuple[nn.Module, torch.Tensor]:
    """DeepLab V3 on MobileNet-V3."""
    return _segmenter("deeplabv3_mobilenet_v3_large")


def lraspp() -> tuple[nn.Module, torch.Tensor]:
    """Lite R-ASPP on MobileNet-V3."""
    return _segmenter("lraspp_mobilenet_v3_large")


def _video(name: str) -> tuple[nn.Module, torch.Tensor]:
    make: Callable[..., nn.Module] = getattr(import_torchvision().models.video, name)
    return make(weights=None), torch.zeros(1, 3, 16 if name == "s3d" else 8, 64, 64)


def r3d() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-18 with 3-D convolutions."""
    return _video("r3d_18")


def mc3() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-18 with 3-D convolutions in its first stages."""
    return _video("mc3_18")


def r2plus1d() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-18 with convolutions over space and over time."""
    return _video("r2plus1d_18")


def s3d() -> tuple[nn.Module, torch.Tensor]:
    """S3D."""
    return _video("s3d")
