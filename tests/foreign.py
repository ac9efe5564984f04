"""Networks as other people write them, small and with every number moved."""

import warnings

import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers


def moved(module, seed=0):
    """Give every statistic of a module a value of its own; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.3, generator=generator)
        elif name.endswith("num_batches_tracked"):
            value.fill_(7)
        elif name.endswith("weight_g"):
            value.mul_(1.7)
    return module.eval()


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return moved(make(), seed)


def narrow_vgg(name="vgg11_bn", weights=None):
    """torchvision's VGG with two convolutions and a narrow classifier; takes what `get_model` takes."""
    with torch.device("meta"):  # the wide classifier is never made
        model = torchvision.models.VGG(make_layers([8]), init_weights=False)
    model.features = make_layers([8, "M", 16, "M", "M", "M", "M"], batch_norm=True)
    first, second = [nn.Linear(16 * 49, 12), nn.Linear(12, 10)]
    between = [nn.ReLU(True), nn.Dropout()]
    model.classifier = nn.Sequential(first, *between, second, nn.ReLU(True), nn.Dropout(), nn.Linear(10, 7))
    return model


class Own(nn.Module):
    """A small network as somebody has it at home: batch norm, work in place, a branch that never runs."""

    def __init__(self, classes=3, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), norm(8), nn.ReLU(inplace=True))
        self.body = nn.Conv2d(8, 12, 3, 2, padding=1)
        self.norm = norm(12)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, classes)
        self.spare = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4))

    def forward(self, x):
        x = self.relu(self.norm(self.body(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


class ShotTrunk(nn.Module):
    """netF of the published code: a torchvision ResNet up to the averaging over places."""

    def __init__(self, model):
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"):
            setattr(self, name, getattr(model, name))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.avgpool(x).flatten(1)


class ShotBottleneck(nn.Module):
    """netB of the published code."""

    def __init__(self, inputs, width):
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.bottleneck = nn.Linear(inputs, width)

    def forward(self, x):
        return self.bn(self.bottleneck(x))


class ShotHead(nn.Module):
    """netC of the published code: by torch's "old" weight_norm, its "new" one, or "plain"."""

    def __init__(self, width, classes, kind):
        super().__init__()
        self.fc = nn.Linear(width, classes)
        if kind == "old":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls it deprecated
                self.fc = nn.utils.weight_norm(self.fc, name="weight")
        elif kind == "new":
            self.fc = nn.utils.parametrizations.weight_norm(self.fc)

    def forward(self, x):
        return self.fc(x)
