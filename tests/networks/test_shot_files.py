"""Networks written by other people's code come out with the same numbers, and nothing in a file is run."""

import copy
import os
import shutil

import pytest
import torch
import torchvision
from foreign import ShotBottleneck, ShotHead, ShotTrunk, seeded
from torch import nn

from socketlab.errors import LabError
from socketlab.networks.backbones import backbone_trunk
from socketlab.networks.checkpoints import load_source, save_source
from socketlab.networks.shot_files import FILES, IMAGENET, read_triple, recognised

NAMES = ("cat", "dog", "cow", "owl", "fox")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A trunk, and the file that it was written to."""
    trunk = seeded(lambda: ShotTrunk(torchvision.models.resnet18()))
    file = tmp_path_factory.mktemp("triple") / FILES[0]
    torch.save(trunk.state_dict(), file)
    return trunk, file


def end(kind="old", inputs=512, width=24, classes=5):
    bottleneck = seeded(lambda: ShotBottleneck(inputs, width), 1)
    return [bottleneck, seeded(lambda: ShotHead(width, classes, kind), 2)]


def write(parts, folder, files=FILES[1:]):
    for part, name in zip(parts, files, strict=True):
        torch.save(part.state_dict(), folder / name)


@pytest.fixture
def triple(resnet, tmp_path):
    """A folder with the three files of a whole network."""
    shutil.copy(resnet[1], tmp_path)
    write(end(), tmp_path)
    return tmp_path


@torch.no_grad()
def assert_same(network, trunk, bottleneck, head, side=64):
    """In float64, so that the order in which a kernel adds does not count."""
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network, trunk = copy.deepcopy(network).double(), copy.deepcopy(trunk).double()
    bottleneck, head = bottleneck.double(), head.double()
    wanted = bottleneck(trunk(x))
    assert wanted.std() > 0.01
    torch.testing.assert_close(network.trunk(x), trunk(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.features(x), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network(x), head(wanted), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["old", "new", "plain"])
def test_a_resnet_says_what_it_said(resnet, tmp_path, kind):
    shutil.copy(resnet[1], tmp_path)
    parts = end(kind)
    write(parts, tmp_path)
    found = read_triple(tmp_path, NAMES)
    assert_same(found.network, resnet[0], *parts)
    assert found.network.trunk.name == "resnet18"
    assert (found.classes, found.normalisation) == (NAMES, IMAGENET)
    assert not found.network.training


def test_names_before_and_around_the_tensors(triple):
    plain = read_triple(triple, NAMES)
    for name in FILES:
        weights = torch.load(triple / name, weights_only=True)
        wrapped = {f"module.{part}": tensor for part, tensor in weights.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, triple / name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    again = read_triple(triple, NAMES)
    assert torch.equal(plain.network(x), again.network(x))


def test_old_files_without_counts_of_batches(triple):
    weights = torch.load(triple / FILES[1], weights_only=True)
    del weights["bn.num_batches_tracked"]
    torch.save(weights, triple / FILES[1])
    torch.testing.assert_close(read_triple(triple, NAMES).network.bottleneck[1].weight, weights["bn.weight"])


def test_a_row_of_zeros_in_a_plain_classifier(triple):
    weights = {"fc.weight": torch.eye(5, 24), "fc.bias": torch.zeros(5)}
    weights["fc.weight"][2] = 0
    torch.save(weights, triple / FILES[2])
    torch.testing.assert_close(read_triple(triple, NAMES).network.head.weight, weights["fc.weight"])


def test_written_and_read_again_as_a_network_of_the_kit(triple):
    found = read_triple(triple, NAMES)
    save_source(found, triple / "net.safetensors")
    again = load_source(triple / "net.safetensors")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.network(x), again.network(x))
    assert again.card == {"read from": list(FILES), "backbone": "resnet18"}


class Trap:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_file_is_never_run(triple, file, new):
    trap = triple / "sprung"
    torch.save({"fc.bias": Trap(trap)}, triple / file, _use_new_zipfile_serialization=new)
    with pytest.raises(LabError, match=rf"^{file} holds more than tensors \(\w+\.mkdir\), which could run"):
        read_triple(triple, NAMES)
    assert not trap.exists()
    torch.load(triple / file, weights_only=False)  # the trap works
    assert trap.exists()


def rewrite(name, change):
    def spoil(folder):
        weights = torch.load(folder / name, weights_only=True)
        change(weights)
        torch.save(weights, folder / name)

    return spoil


def cut(folder):
    data = (folder / FILES[2]).read_bytes()
    (folder / FILES[2]).write_bytes(data[: len(data) // 2])


SPOILED = {
    "missing file": (lambda folder: (folder / FILES[1]).unlink(), r"there is no file .*source_B\.pt"),
    "pickled module": (
        lambda folder: torch.save(nn.Linear(24, 5), folder / FILES[2]),
        r"source_C\.pt holds more than tensors \(torch\.nn\S+\).* write module\.state_dict\(\)",
    ),
    "truncated": (cut, r"source_C\.pt is no torch file of tensors, or not a whole one"),
    "text": (lambda folder: (folder / FILES[2]).write_text("<html>"), r"source_C\.pt is no torch file"),
    "empty": (lambda folder: (folder / FILES[2]).write_bytes(b""), r"source_C\.pt is no torch file"),
    "a list": (
        lambda folder: torch.save([torch.zeros(2)], folder / FILES[1]),
        r"source_B\.pt does not hold tensors by name",
    ),
    "fewer classes": (
        lambda folder: torch.save(end(classes=4)[1].state_dict(), folder / FILES[2]),
        r"source_C\.pt has 4 classes, but 5 are named",
    ),
    "missing weights": (
        rewrite(FILES[1], lambda w: w.pop("bn.running_mean")),
        r"source_B\.pt .*do not fit: 1\.running_mean is missing",
    ),
    "strange weights": (
        rewrite(FILES[2], lambda w: w.update(scale=torch.ones(1))),
        r"source_C\.pt do not fit: scale is too many",
    ),
    "another width": (
        lambda folder: torch.save(end(width=16)[1].state_dict(), folder / FILES[2]),
        r"source_C\.pt do not fit: \S+original1 is \(5, 16\), not \(5, 24\)",
    ),
    "no bias": (rewrite(FILES[2], lambda w: w.pop("fc.bias")), r"source_C\.pt do not fit: bias is missing"),
    "unused norm": (
        rewrite(FILES[1], lambda w: w["bn.num_batches_tracked"].zero_()),
        r"batch norm in source_B\.pt never saw an image",
    ),
    "odd shapes": (
        rewrite(FILES[1], lambda w: w.update({"bottleneck.weight": torch.tensor(1.0)})),
        r"source_B\.pt .*do not fit: 1\.weight is \(24,\), not \(256,\)",
    ),
    "another trunk": (
        lambda folder: torch.save({"conv.weight": torch.zeros(2)}, folder / FILES[0]),
        r"source_F\.pt is of no known backbone \(it begins with conv\.weight\)",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_files_are_refused_in_a_sentence(triple, case):
    spoil, told = SPOILED[case]
    spoil(triple)
    with pytest.raises(LabError, match=told):
        read_triple(triple, NAMES)


def test_backbones_are_told_apart_by_their_shapes():
    with torch.device("meta"):
        weights = backbone_trunk("resnext50_32x4d").state_dict()
    assert recognised(weights) == "resnext50_32x4d"
