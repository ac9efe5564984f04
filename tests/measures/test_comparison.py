"""Comparisons of networks, layers and modalities, and their report."""

import csv
import json
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner
from worlds import patterned, trained_source

import socketlab
from socketlab import LabError, compare
from socketlab.cli import app
from socketlab.figures.comparison_report import NUMBERS, SETTINGS, headline, pictures, write
from socketlab.measures.bn_moments import norm_statistics
from socketlab.measures.comparison import main_layers
from socketlab.measures.layer_features import extract_features
from socketlab.networks.networks import Mixture, small_network

PAIRS = patterned(48, 5)


def small_vgg() -> nn.Module:
    """torchvision's VGG-11 with batch norm; its three wide layers made narrow."""
    cut = torchvision.models.vgg.cfgs["A"]
    network = torchvision.models.VGG(torchvision.models.vgg.make_layers(cut, batch_norm=True), num_classes=4)
    network.classifier = nn.Sequential(nn.Linear(512 * 49, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4))
    return network


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def noise(seed: int, shift: float = 0.0, count: int = 40) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) + shift


def test_one_network_on_two_modalities(tmp_path):
    source = trained_source()
    found = compare(source, source, PAIRS.only("rgb"), PAIRS.only("depth"), rounds=10)
    assert found.paired
    assert found.at == "bottleneck"
    assert list(found.layers) == ["trunk.0", "trunk.3", "trunk.4", "trunk.5", "trunk.6", "bottleneck"]
    # all numbers are those of the functions behind them
    rows = extract_features(source.network, PAIRS.only("rgb"), "bottleneck", source.normalisation)
    np.testing.assert_allclose(found.features[0], rows["bottleneck"], rtol=1e-5, atol=1e-6)
    seen = norm_statistics(source.network, PAIRS.only("rgb"), source.normalisation)
    assert found.norms is not None
    assert found.norms.layers == tuple(one.name for one in seen)
    assert found.norms.b.mean() > found.norms.a.mean()  # depth is further from the memory of colour
    right = found.accuracy("a")
    assert right is not None
    assert right[1].mean() == pytest.approx(socketlab.features.accuracy(source, PAIRS.only("rgb")))
    told = {one.name for one in found.measures["bottleneck"]}
    assert {"mmd", "frechet", "linear_cka", "pair_recall", "proxy_a_distance"} <= told

    page = write(found, tmp_path / "a report").read_text()
    assert "bottleneck" in page
    assert "<script" not in page
    with open(tmp_path / "a report" / NUMBERS, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found.numbers())
    one = next(x for x in lines if x["measure"] == "mmd" and x["layer"] == "bottleneck")
    assert float(one["value"]) == found.found("mmd").value
    assert float(one["low"]) <= float(one["value"]) <= float(one["high"])
    assert json.loads((tmp_path / "a report" / SETTINGS).read_text())["at"] == "bottleneck"
    for word in ("rounds", "paired", "seed"):
        assert f'<th scope="row">{word}</th>' in page
    assert "Run it again" not in page


def test_a_network_against_itself_shows_no_gap():
    source = trained_source()
    found = compare(source, source, PAIRS.only("rgb"), PAIRS.only("rgb"), rounds=5)
    assert found.found("linear_cka").value == pytest.approx(1.0)
    assert found.found("frechet").value == pytest.approx(0.0, abs=1e-3)
    assert found.found("pair_rank").value == pytest.approx(0.0, abs=1e-6)
    assert found.found("mmd").p > 0.05
    np.testing.assert_array_equal(found.norms.a, found.norms.b)
    assert "cannot be told apart" in headline(found)


def test_a_shift_of_the_images_is_seen_and_grows():
    network = seeded(lambda: torchvision.models.resnet18(num_classes=4))
    gaps = [compare(network, "layer1", noise(0), noise(1, shift), rounds=3) for shift in (0.0, 0.1, 0.4)]
    assert all(list(one.layers) == ["layer1"] for one in gaps)
    values = [one.found("mmd").value for one in gaps]
    assert abs(values[0]) < 0.05 < values[1] < values[2]
    assert gaps[0].found("mmd").p > 0.05 >= gaps[2].found("mmd").p
    assert gaps[2].norms.b.mean() > gaps[0].norms.b.mean()
    assert not gaps[0].paired
    assert "no pairs" in " ".join(gaps[0].notes)


@pytest.mark.parametrize(
    ("make", "last", "statistics"),
    [
        (lambda: torchvision.models.resnet18(num_classes=4), "layer4", True),
        (small_vgg, "classifier.0", True),
        (lambda: torchvision.models.squeezenet1_1(num_classes=4), "classifier.1", False),
    ],
    ids=["ResNet-18", "VGG-11 with batch norm", "SqueezeNet, without"],
)
def test_networks_of_torchvision(make, last, statistics, tmp_path):
    network = seeded(make).train()
    size = 64
    a, b = (
        torch.nn.functional.interpolate(noise(seed, shift, 20), size) for seed, shift in ((0, 0.0), (1, 1.0))
    )
    before = {name: x.clone() for name, x in network.state_dict().items()}
    found = compare(network, network, a, b, paired=True, rounds=4, titles=("near", "far"))
    assert found.at == last
    assert network.training
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())
    assert (found.norms is not None) == statistics
    if not statistics:
        assert any("no batch-norm statistics" in note for note in found.notes)
    page = write(found, tmp_path, umap=False).read_text()
    assert "near against far" in page and "Joint PCA" in page
    assert ("What the batch-norm layers see" in page) == statistics
    if not statistics:
        assert "SqueezeNet has no batch-norm statistics" in page


def test_two_kinds_of_networks_meet_at_what_their_heads_read():
    wide, narrow = torchvision.models.resnet18(num_classes=4), small_network(4, width=8)
    found = compare(wide, narrow, noise(0), noise(0), paired=True, rounds=4)
    assert found.layers == {"layer4": "bottleneck"}
    assert found.found("mmd") is None  # 512 numbers against 128
    assert 0 <= found.found("linear_cka").value <= 1
    assert [one.title for one in pictures(found, umap=False)] == ["Layer by layer"]
    assert "no batch-norm layers of the same name" in " ".join(found.notes)


def test_layers_may_be_chosen_and_must_match():
    wide, narrow = torchvision.models.resnet18(num_classes=4), torchvision.models.resnet34(num_classes=4)
    found = compare(wide, narrow, noise(0), noise(0), layers="layer[12]", paired=True, rounds=4)
    assert found.layers == {"layer1": "layer1", "layer2": "layer2"}
    other = small_network(4, width=8)
    found = compare(wide, other, noise(0), noise(0), layers="*[46]*conv2", rounds=4)
    assert found.layers == {"layer4.0.conv2": "trunk.4.conv2", "layer4.1.conv2": "trunk.6.conv2"}
    with pytest.raises(LabError, match="name layers that both have"):
        compare(wide, other, noise(0), noise(0), layers="*conv1")
    with pytest.raises(LabError, match="no layer 'layer9'"):
        compare(wide, "layer9", noise(0), noise(0))


def test_numbers_in_place_of_names_make_no_pairs():
    """Two unlabelled sets of equal size are numbered alike, and show different rooms."""
    source, others = trained_source(), patterned(48, 6)
    apart = compare(
        source, "bottleneck", PAIRS.only("rgb").unlabelled(), others.only("depth").unlabelled(), rounds=3
    )
    assert not apart.paired
    assert apart.found("linear_cka") is None
    same = PAIRS.unlabelled()
    told = compare(source, "bottleneck", same.only("rgb"), same.only("depth"), rounds=3, paired=True)
    assert told.paired
    assert told.found("linear_cka") is not None


class Detector(nn.Module):
    """Returns a list of boxes for each image, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3)))

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"boxes": one.mean((1, 2))[None]} for one in self.body(x)]


def test_a_network_without_a_row_per_image_is_compared_by_its_layers():
    network = Detector()
    found = compare(network, "body.2", noise(0), noise(1, 0.5), rounds=3)
    assert found.outputs == (None, None)
    assert found.accuracy("a") is None
    assert found.found("mmd").value > 0
    with pytest.raises(LabError, match="no layer 'head'"):
        compare(network, "head", noise(0), noise(1))


def test_of_a_mixture_the_first_network_is_compared_and_the_report_says_so():
    mixture = Mixture([small_network(3, 8), small_network(3, 8, seed=1)])
    found = compare(mixture, mixture, noise(0), noise(1), rounds=3)
    assert found.at == "networks.0.bottleneck"
    assert any("mixture" in note for note in found.notes)


def test_bad_input_is_named():
    source = trained_source()
    with pytest.raises(LabError, match="48 images need as many labels"):
        compare(source, source, PAIRS.only("rgb"), PAIRS.only("depth"), labels_a=[0, 1])
    with pytest.raises(LabError, match="too few"):
        compare(source, source, PAIRS.take([0]).only("rgb"), PAIRS.take([0]).only("depth"))
    with pytest.raises(LabError, match="one modality"):
        compare(source, source, PAIRS, PAIRS)


def test_the_same_seed_gives_the_same_numbers():
    source = trained_source()
    twice = [
        compare(source, "bottleneck", PAIRS.only("rgb"), PAIRS.only("depth"), rounds=6) for _ in range(2)
    ]
    for one, other in zip(twice[0].numbers(), twice[1].numbers(), strict=True):
        for key in one:
            same = one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key]))
            assert same, (one, other)


def test_main_layers():
    assert main_layers(torchvision.models.resnet18()) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert main_layers(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))) == ["0"]
    names = main_layers(torchvision.models.resnet50(), most=3)
    assert names[0] == "conv1"
    assert names[-1] == "layer4"
    assert len(names) == 3
    mixture = Mixture([small_network(3, 8), small_network(3, 8)])
    assert main_layers(mixture)[-1] == "networks.0.bottleneck"


def test_the_command(tmp_path, monkeypatch):
    out = tmp_path / "report"
    options = ["--layers", "bottleneck", "--rounds", "4", "--no-umap", "--out", str(out), "--strength", "2.0"]
    monkeypatch.setattr(sys, "argv", ["socketlab", "compare", *options])  # what a shell would have typed
    done = CliRunner().invoke(app, ["compare", *options])
    assert done.exit_code == 0, done.output
    assert "MMD²" in done.output
    page = (out / "report.html").read_text()
    assert "rgb by rgb_kinect_v1 against depth by rgb_kinect_v1" in page
    for fact in ("kinect_v1, strength 2", "PocketRooms (sha256 ", "320 rgb images (sha256 ", "torch "):
        assert fact in page, fact
    assert "socketlab compare --layers bottleneck --rounds 4 --no-umap --out " in page
    wrong = CliRunner().invoke(app, ["compare", "--layers", "nothing"])
    assert wrong.exit_code == 2
    assert "no layer 'nothing'" in wrong.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rounds": 0}, "rounds is 0; an interval needs at least 2"),
        ({"rounds": -1}, "rounds is -1"),
        ({"seed": -9}, "seed is -9; choose a whole number from 0"),
        ({"layers": []}, "No layer is named"),
        ({"layers": 5}, "by its name or a pattern, not by 5"),
        ({"model_a": "rgb_kinect_v1"}, "a Source or a torch module, not 'rgb_kinect_v1': see load_source"),
        ({"model_b": 5}, "by its name or a pattern, not by 5"),
        ({"data_a": noise(0)[:, :1]}, r"ResNet does not run on images \(40, 1, 32, 32\)"),
        ({"data_a": noise(0).permute(0, 2, 3, 1)}, r"images.permute\(0, 3, 1, 2\)"),
        ({"data_a": (noise(0) * 9).byte()}, "floats, not torch.uint8"),
        ({"labels_a": [-7] * 40}, "labels are whole numbers from 0"),
        ({"labels_a": [0.5] * 40}, "labels are whole numbers from 0"),
        ({"labels_a": [0] * 7}, r"40 images need as many labels, not \(7,\)"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(change, words):
    network = seeded(lambda: torchvision.models.resnet18(num_classes=4))
    arguments = {"model_a": network, "model_b": "layer1", "data_a": noise(0), "data_b": noise(1), "rounds": 3}
    if "layers" in change:
        arguments["model_b"] = network
    with pytest.raises(LabError, match=words):
        compare(**arguments | change)


def test_images_of_any_float_and_a_list_are_converted():
    network = seeded(lambda: torchvision.models.resnet18(num_classes=4))
    wanted = compare(network, "layer1", noise(0), noise(1), rounds=3).found("mmd").value
    for convert in (torch.Tensor.double, lambda x: x.double().numpy(), list):
        found = compare(network, "layer1", convert(noise(0)), convert(noise(1)), rounds=3)
        assert found.found("mmd").value == wanted
    half = compare(network, "layer1", noise(0).half(), noise(1).half(), rounds=3).found("mmd").value
    assert half == pytest.approx(wanted, abs=0.01)
    assert compare(network.bfloat16(), "layer1", noise(0), noise(1), rounds=3).found("mmd") is not None
