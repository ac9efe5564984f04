"""torchvision's networks and users' modules compute as networks of the kit what they computed before."""

import copy
import tempfile
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from foreign import Own, narrow_vgg, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from worlds import CLASSES, patterned

from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.method import bnstats
from socketlab.method.adaptation import Epoch, State, Step, adapt
from socketlab.method.recipe import Recipe
from socketlab.networks.backbones import (
    BACKBONES,
    backbone_network,
    backbone_trunk,
    weights_normalisation,
)
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.networks.custom_networks import adapted
from socketlab.networks.networks import Mixture, norm_layers
from socketlab.networks.weights import read_weights

TORCHVISION = BACKBONES[:-1]
GREY = Normalisation("rgb", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
EVERYTHING = Recipe(
    lambda_bn=0.5, lambda_ti=1.0, ti_map=1.0, align_epochs=0, epochs=1, batch_size=4, pair_views=1
)
"""One step with every term of SOCKET and the alignment of maps."""


def noise(side=64, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def resnet():
    """torchvision's own, in eval mode."""
    return seeded(torchvision.models.resnet18)


@pytest.fixture(scope="module")
def resnet_source():
    return Source(backbone_network("resnet18", 3, width=16).eval(), CLASSES, GREY)


# ------------------------------------------------------------------------ torchvision


def test_every_network_of_these_families_with_batch_norm_is_known():
    families = ("resnet", "resnext", "wide_resnet")
    listed = torchvision.models.list_models(module=torchvision.models)
    assert {name for name in listed if name.startswith(families)} == set(TORCHVISION)


@pytest.mark.parametrize("name", TORCHVISION)
def test_trunks_have_torchvisions_names_and_shapes(name):
    with torch.device("meta"):  # shapes alone
        trunk, model = backbone_trunk(name).eval(), torchvision.models.get_model(name)
        wanted = {n: x.shape for n, x in model.state_dict().items()}
        wanted = {n: shape for n, shape in wanted.items() if not n.startswith("fc.")}
        assert {n: x.shape for n, x in trunk.state_dict().items()} == wanted
        spatial, features = trunk.with_map(torch.empty(2, 3, 96, 96))
        assert spatial.shape[::2] == (2, 3) and spatial.shape[3] == 3
        assert features.shape == trunk(torch.empty(2, 3, 96, 96)).shape == (2, trunk.features)
        assert trunk.name == name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_a_resnet_with_weights_from_a_file(resnet, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(resnet.state_dict(), file)
    network = backbone_network("resnet18", 5, file, width=24).double().eval()
    model = copy.deepcopy(resnet).double()
    model.fc = nn.Identity()
    x = noise().double()
    torch.testing.assert_close(network.trunk(x), model(x), rtol=1e-9, atol=1e-9)
    spatial, features = network.map_and_features(x)
    torch.testing.assert_close(features, network.bottleneck(model(x)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(spatial.mean((2, 3)), model(x), rtol=1e-9, atol=1e-9)
    assert features.shape == (2, 24) and network(x).shape == (2, 5)


def test_same_seed_same_weights_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (backbone_network("resnet18", 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["trunk.conv1.weight"], other["trunk.conv1.weight"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2"])
def test_images_are_normalised_as_the_weights_transforms_do(name):
    image = (noise(256, 1) * 60 + 128).clamp(0, 255).to(torch.uint8)
    transform = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()  # 256² stays, then 224²
    found = weights_normalisation(name, "IMAGENET1K_V1").encode(image[..., 16:240, 16:240])
    torch.testing.assert_close(found, transform(image), rtol=1e-6, atol=1e-6)


def test_named_weights_are_asked_of_torchvision_safely(resnet, monkeypatch):
    asked = {}

    def answer(url, **how):
        asked.update(how, url=url)
        return resnet.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)
    network = backbone_network("resnet18", 3, "DEFAULT")
    assert torch.equal(network.trunk.conv1.weight, resnet.conv1.weight)
    assert asked["url"] == torchvision.models.ResNet18_Weights.DEFAULT.url
    assert asked["weights_only"] is True and asked["check_hash"] is True


def test_without_a_connection(tmp_path, monkeypatch):
    def refuse(*_arguments, **_names):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(LabError, match=r"resnet18\S+ cannot be fetched \(Temporary .*give its path"):
        backbone_network("resnet18", 3, "IMAGENET1K_V1")
    backbone_network("resnet18", 3)  # asks nobody
    assert weights_normalisation("resnet18").modality == "rgb"


def test_unknown_names_are_told():
    with pytest.raises(LabError, match=r"backbone 'resnet51' is unknown: choose .*resnet50"):
        backbone_network("resnet51", 3)
    with pytest.raises(LabError, match="backbone 'vgg16' is unknown: choose one of resnet18, resnet34"):
        weights_normalisation("vgg16")
    with pytest.raises(
        LabError, match="weights of resnet18 'IMAGENET1K_V9' is unknown: choose one of IMAGENET1K_V1"
    ):
        backbone_network("resnet18", 3, "IMAGENET1K_V9")
    with pytest.raises(LabError, match=r"there is no file here\.pth"):
        backbone_network("resnet18", 3, "here.pth")


def test_weights_of_another_network(resnet, tmp_path):
    weights = resnet.state_dict()
    torch.save(weights | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, tmp_path / "four.pth")
    with pytest.raises(LabError, match=r"conv1\.weight is \(64, 4, 7, 7\), not \(64, 3, 7, 7\)"):
        backbone_network("resnet18", 3, tmp_path / "four.pth")
    weights.pop("layer4.1.bn2.bias")
    torch.save(weights, tmp_path / "less.pth")
    with pytest.raises(LabError, match=r"do not fit: layer4\.1\.bn2\.bias is missing"):
        backbone_network("resnet18", 3, tmp_path / "less.pth")


def _written(kind):
    weights = {"weight": torch.arange(120.0).view(5, 24), "bias": torch.arange(5.0)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        if kind == "safetensors":
            save_file(weights, file)
        else:
            torch.save(weights, file, _use_new_zipfile_serialization=kind == "zip")
        return file.read_bytes()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@settings(max_examples=40, deadline=None, database=None)
@given(place=st.integers(0, 10**6))
def test_a_file_cut_anywhere_is_refused_in_a_sentence(kind, place):
    data = _written(kind)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("cut.safetensors" if kind == "safetensors" else "cut.pt")
        file.write_bytes(data[: place % len(data)])
        with pytest.raises(LabError, match=r"whole|more than tensors"):  # half a name is a strange one
            read_weights(file)
        file.write_bytes(data)
        assert sorted(read_weights(file)) == ["bias", "weight"]


# ------------------------------------------------------------------------ custom modules


@torch.no_grad()
def test_a_module_with_its_own_head_keeps_its_logits():
    module = seeded(Own)
    before = copy.deepcopy(module.state_dict())
    network = adapted(module, 3, head="fc")
    x = noise()
    assert torch.equal(network(x), module(x))
    spatial, features = network.map_and_features(x)
    assert torch.equal(features, network.features(x))
    reached = module.relu(module.norm(module.body(module.stem(x))))
    assert torch.equal(spatial, reached)  # the map after the work in place
    torch.testing.assert_close(features, reached.mean((2, 3)))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not network.training


def test_layers_that_never_run_are_left_out():
    network = adapted(seeded(Own), 3, head="fc")
    names = {layer: name for name, layer in network.trunk.named_modules()}
    assert [names[layer] for layer in norm_layers(network.trunk)] == ["module.stem.1", "module.norm"]
    early = adapted(seeded(Own), 3, features="stem", width=16)
    assert {name.split(".")[1] for name in early.trunk.state_dict()} == {"stem"}
    with bnstats.batch_statistics(early.trunk) as seen:
        early.train()(noise())
        assert [layer.mean.shape for layer in seen.values()] == [(8,)]


@torch.no_grad()
def test_a_new_bottleneck_and_head_after_a_layer():
    module = seeded(Own)
    network = adapted(module, 4, features="norm", width=16).eval()
    x = noise()
    wanted = module.norm(module.body(module.stem(x)))
    spatial, features = network.map_and_features(x)
    assert torch.equal(spatial, wanted)
    torch.testing.assert_close(features, network.bottleneck(wanted.mean((2, 3))))
    assert network.features(x).shape == (2, 16) and network(x).shape == (2, 4)
    rows = adapted(module, 4, features="pool").eval()
    assert torch.equal(rows.map_and_features(x)[0], torch.relu(wanted))
    torch.testing.assert_close(rows.trunk(x), torch.relu(wanted).mean((2, 3)))


@torch.no_grad()
def test_a_torchvision_network_as_a_custom_one(resnet):
    network = adapted(resnet, 1000, head="fc")
    x = noise()
    torch.testing.assert_close(network(x), resnet(x))
    assert network.trunk.map_at == "layer4" and network.trunk.features == 512


@torch.no_grad()
def test_rows_without_a_map_are_a_map_of_one_place():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    network = adapted(module, 3, head="4", side=4).eval()
    spatial, features = network.map_and_features(noise(4))
    assert torch.equal(spatial, features[:, :, None, None])


def test_a_copy_looks_at_its_own_layers():
    network = adapted(seeded(Own), 3, head="fc")
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.trunk.module.body.weight.zero_()
        other.trunk.module.norm.weight.zero_()
        other.trunk.module.norm.bias.zero_()
    assert other.features(noise()).abs().max() == 0
    assert network.features(noise()).abs().max() > 0
    assert not any(layer._forward_hooks for layer in network.modules())


class Softmaxed(Own):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


class Functional(Own):
    def forward(self, x):
        return nn.functional.linear(self.pool(self.stem(x)).flatten(1)[:, :8], self.fc.weight[:, :8])


class Convolved(Own):
    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(12, 3, 1)

    def forward(self, x):
        return self.fc(self.pool(self.relu(self.norm(self.body(self.stem(x)))))).flatten(1)


class Plain(Own):
    def __init__(self):
        super().__init__(norm=nn.Identity)


class Forgetful(Own):
    def __init__(self):
        super().__init__(norm=lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))


class Grey(Own):
    def forward(self, x):
        return super().forward(x[:, :1])


class Paired(Own):
    def forward(self, x):
        return super().forward(x), x


REFUSED = {
    "neither": (Own, {}, "give either head, the layer that makes the logits, or features"),
    "both": (Own, {"head": "fc", "features": "pool"}, "give either head"),
    "no such layer": (Own, {"head": "fx"}, "Own has no layer 'fx': near it are fc"),
    "never called": (Own, {"features": "spare"}, "layer 'spare' of Own is never called"),
    "not called but used": (Functional, {"head": "fc"}, "layer 'fc' of Functional is never called"),
    "other classes": (lambda: Own(4), {"head": "fc"}, r"returns \(2, 4\) for 2 images, not \(2, 3\)"),
    "no tensor": (Paired, {"head": "fc"}, "Paired returns a tuple for 2 images"),
    "softmax after": (Softmaxed, {"head": "fc"}, "the logits of layer 'fc' are not those of the module"),
    "head on a map": (Convolved, {"head": "fc"}, r"layer 'fc' reads \(2, 12, 1, 1\): a head reads features"),
    "whole head": (Own, {"head": ""}, "Own has no layer '': near it are stem"),
    "other images": (Grey, {"head": "fc"}, r"Grey does not run on images \(2, 3, 64, 64\)"),
    "no batch norm": (Plain, {"head": "fc"}, r"Plain has no batch norm: .*\(λ_d\), AdaBN, .* TENT"),
    "half precision": (
        lambda: Own().bfloat16(),
        {"head": "fc"},
        r"Own has bfloat16 weights: give it in float32, as module.float\(\)",
    ),
    "lazy": (
        lambda: Own(norm=lambda channels: nn.LazyBatchNorm2d()),
        {"head": "fc"},
        "Own has lazy layers without weights yet: run it once on a batch",
    ),
    "frozen": (
        lambda: Own(norm=torchvision.ops.FrozenBatchNorm2d),
        {"head": "fc"},
        "FrozenBatchNorm2d is a batch norm that cannot adapt: put torch.nn.BatchNorm2d in its place",
    ),
    "frozen beside others": (
        lambda: nn.Sequential(
            Own(norm=torchvision.ops.FrozenBatchNorm2d), nn.BatchNorm1d(3), nn.Linear(3, 3)
        ),
        {"head": "2"},
        "FrozenBatchNorm2d is a batch norm that cannot adapt",
    ),
    "a transformer's side": (
        lambda: torchvision.models.VisionTransformer(56, 8, 2, 2, 16, 32, num_classes=3),
        {"head": "heads"},
        r"Wrong image height! Expected 56 but got 64!\): .* is given as side, here 64",
    ),
    "no memory": (Forgetful, {"head": "fc"}, "a batch norm of Forgetful keeps no running statistics"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adapted_is_told(case):
    make, how, told = REFUSED[case]
    with pytest.raises(LabError, match=told):
        adapted(make().eval(), 3, **how)


def test_features_that_are_neither_rows_nor_maps():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2))
    with pytest.raises(LabError, match=r"layer '2' of Sequential gives \(2, 4, 3844\)"):
        adapted(module, 3, features="2")


# ------------------------------------------------------------------------ through the kit


def one_step(source, recipe=EVERYTHING):
    """An adaptation of one step: its losses, and the end."""
    events = list(adapt(source, patterned(4, 1).only("depth"), patterned(4, 2), recipe))
    (step,) = [event for event in events if isinstance(event, Step)]
    assert isinstance(events[-1], Epoch)
    return step.losses, events[-1].state


def assert_it_learnt(source, state):
    before, after = source.network.state_dict(), state.adapted.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("head.") for name in moved)
    weights = {name for name, _ in source.network.named_parameters() if not name.startswith("head.")}
    assert weights <= moved


def test_a_resnet_takes_one_step_with_every_term(resnet_source, tmp_path):
    losses, state = one_step(resnet_source)
    assert set(losses) == {"TI", "BN", "IM", "PL"}
    assert all(value == value and abs(value) < 1e4 for value in losses.values())
    assert losses["BN"] > 0 and losses["TI"] > 0
    assert len(bnstats.running_moments(state.networks[0].trunk)) == 20  # all that a ResNet-18 has
    assert_it_learnt(resnet_source, state)
    state.save(tmp_path / "state.safetensors")
    again = State.load(tmp_path / "state.safetensors", resnet_source)
    assert torch.equal(again.networks[0].trunk.conv1.weight, state.networks[0].trunk.conv1.weight)


@pytest.mark.parametrize("how", [{"head": "fc"}, {"features": "relu", "width": 16}])
def test_a_custom_module_takes_one_step_with_every_term(how):
    source = Source(adapted(seeded(Own), 3, **how), CLASSES, GREY)
    losses, state = one_step(source)
    assert set(losses) == {"TI", "BN", "IM", "PL"}
    assert losses["BN"] > 0 and losses["TI"] > 0
    assert_it_learnt(source, state)


def test_without_batch_norm_the_other_terms_are_left():
    source = Source(adapted(seeded(Plain), 3, head="fc", batch_norm=False), CLASSES, GREY)
    losses, state = one_step(source, EVERYTHING.replace(lambda_bn=0.0))
    assert set(losses) == {"TI", "IM", "PL"}
    assert_it_learnt(source, state)
    with pytest.raises(LabError, match="no batch norm: set lambda_bn to 0"):
        one_step(source, EVERYTHING)


@torch.no_grad()
def test_written_and_read_again_by_name(resnet_source, tmp_path):
    save_source(resnet_source, tmp_path / "one.safetensors")
    again = load_source(tmp_path / "one.safetensors")
    x = noise()
    assert torch.equal(again.network(x), resnet_source.network(x))
    assert again.network.trunk.name == "resnet18"
    mixture = Mixture([resnet_source.network, backbone_network("resnet18", 3, width=16, seed=1)]).eval()
    save_source(Source(mixture, CLASSES, GREY), tmp_path / "two.safetensors")
    assert torch.equal(load_source(tmp_path / "two.safetensors").network(x), mixture(x))


@torch.no_grad()
def test_a_custom_module_is_read_into_its_like(tmp_path):
    source = Source(adapted(seeded(Own), 3, head="fc"), CLASSES, GREY)
    save_source(source, tmp_path / "own.safetensors")
    with pytest.raises(LabError, match=r"own\.safetensors holds the weights of a custom module"):
        load_source(tmp_path / "own.safetensors")
    like = adapted(seeded(Own, seed=9), 3, head="fc")
    x = noise()
    assert not torch.equal(like(x), source.network(x))
    again = load_source(tmp_path / "own.safetensors", network=like)
    assert torch.equal(again.network(x), source.network(x))
    with pytest.raises(LabError, match="its header does not match its weights"):
        load_source(tmp_path / "own.safetensors", network=adapted(seeded(lambda: Own(2)), 2, head="fc"))


def test_a_backbone_that_no_longer_exists(resnet_source, tmp_path, monkeypatch):
    monkeypatch.setattr(resnet_source.network.trunk, "name", "resnet19")
    save_source(resnet_source, tmp_path / "odd.safetensors")
    with pytest.raises(LabError, match="backbone 'resnet19' is unknown"):
        load_source(tmp_path / "odd.safetensors")


def test_dropout_repeats_whatever_torch_was_seeded_with_and_resumes(tmp_path):
    source = Source(adapted(seeded(narrow_vgg), 3, features="classifier.5", width=16).eval(), CLASSES, GREY)
    recipe = EVERYTHING.replace(epochs=2)

    def last(seed, state=None):
        torch.manual_seed(seed)
        for event in adapt(source, patterned(8, 1).only("depth"), patterned(4, 2), recipe, state=state):
            if isinstance(event, Epoch):
                if event.epoch == 1:
                    event.state.save(tmp_path / "state.safetensors")
                final = event.state.adapted.network.state_dict()
        return final

    with torch.random.fork_rng(devices=[]):
        expected, again = last(0), last(1)
        resumed = last(2, State.load(tmp_path / "state.safetensors", source))
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
