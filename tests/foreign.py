"""Networks as other people write them, small and with every number moved."""

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
