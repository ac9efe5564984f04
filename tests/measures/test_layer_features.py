"""Features and norm statistics of any layer: right numbers, no trace."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from socketlab.errors import LabError
from socketlab.images.encodings import measure
from socketlab.images.paired_images import centre_view
from socketlab.measures.bn_moments import norm_statistics
from socketlab.measures.layer_features import extract_features, layer_names
from socketlab.networks.networks import small_network
from tests.worlds import patterned


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in eval mode with the same random weights every time, whose batch norm remembers something.

    Built without memory first: torchvision would take seconds to initialise the large ones.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, x in (*network.named_parameters(), *network.named_buffers()):
        if x.is_floating_point():
            spread = (x[0].numel() + 1) ** -0.5 if x.ndim > 1 else 0.1
            nn.init.normal_(x, float(x.ndim == 1 and "bias" not in name), spread, generator=generator)
        else:
            x.zero_()
    return network.eval()


def vgg() -> nn.Module:
    """VGG-11 with batch norm; its classifier, a hundred million weights, cut short."""
    network = torchvision.models.vgg11_bn(weights=None)
    network.classifier = nn.Linear(512 * 7 * 7, 4)
    return network


def small() -> nn.Module:
    """Two convolutions, one with batch norm, and a linear layer: (B, 3, 8, 8) → (B, 5)."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, 3, stride=2),
            nn.Flatten(),
            nn.Linear(36, 5),
            nn.BatchNorm1d(5),
        )
    )


def pictures(count: int = 10, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def trace(network: nn.Module) -> tuple:
    """All that a look must not change."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    modes = [m.training for m in network.modules()]
    state = [t.clone() for t in network.state_dict().values()]
    return hooks, modes, state, torch.random.get_rng_state(), torch.is_grad_enabled()


def same(before: tuple, after: tuple) -> bool:
    tensors = zip(before[2], after[2], strict=True)
    return (
        before[:2] == after[:2]
        and all(torch.equal(a, b) for a, b in tensors)
        and torch.equal(before[3], after[3])
        and before[4] == after[4]
    )


# names


def test_names_by_glob_and_list():
    network = seeded(torchvision.models.resnet18)
    assert layer_names(network, "layer[12]") == ["layer1", "layer2"]
    assert layer_names(network, "layer3.*.bn?") == [f"layer3.{b}.bn{n}" for b in (0, 1) for n in (1, 2)]
    assert layer_names(network, ["fc", "layer4", "layer*"])[-2:] == ["layer4.1.bn2", "fc"]
    assert layer_names(network, "") == [""]
    assert "" not in layer_names(network)
    assert len(layer_names(network)) == len(list(network.modules())) - 1


def test_weights_of_a_parametrization_are_no_layers():
    assert [name for name in layer_names(small_network(3)) if "parametrization" in name] == []


def test_name_that_matches_nothing_lists_near_ones():
    network = seeded(torchvision.models.resnet18)
    with pytest.raises(LabError, match=r"ResNet has no layer 'layer5': near it are .*layer4"):
        layer_names(network, ["layer1", "layer5"])
    with pytest.raises(LabError, match=r"has no layer 'xyz': near it are conv1, bn1"):
        layer_names(network, "xyz")


# numbers


@pytest.mark.parametrize("batch", [1, 4, 10, 256])
def test_features_equal_a_forward_pass_by_hand(batch):
    network, x = small(), pictures()
    network.eval()
    with torch.no_grad():
        last = network[:4](x)
        first = network[:2](x)
        out = network(x)
    found = extract_features(network, x, ["1", "3", "6", ""], batch=batch)
    assert list(found) == ["", "1", "3", "6"]
    np.testing.assert_allclose(found["3"], last.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found["6"], out, atol=1e-6)
    np.testing.assert_allclose(found[""], out, atol=1e-6)
    assert found["3"].dtype == np.float32
    # what follows works in place: the features are those from before it
    np.testing.assert_allclose(found["1"], first.mean((2, 3)), atol=1e-6)
    flat = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True))
    np.testing.assert_array_equal(extract_features(flat, x.clone(), "0")["0"], x.flatten(1))


def test_a_layer_that_only_some_batches_reach_is_told():
    network = nn.Sequential(nn.Flatten(), nn.Identity())
    network.forward = lambda x: network[1](network[0](x)) if len(x) > 2 else network[0](x)
    with pytest.raises(LabError, match="Layers 1 are reached for some batches and not for others"):
        extract_features(network, pictures(5), "*", batch=3)


def test_every_form_of_images_gives_the_same():
    world = patterned(7, 0).only("depth")
    source = small_network(3, width=8)
    own = measure(world.images["depth"], "depth")
    encoded = own.encode(centre_view(world.images["depth"]))
    labelled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(encoded, torch.arange(7)), 3)
    forms = [
        extract_features(source, world, "bottleneck", own, batch=3),
        extract_features(source, encoded, "bottleneck", batch=4),
        extract_features(source, encoded.numpy(), "bottleneck"),
        extract_features(source, (part for part in encoded.split(2)), "bottleneck"),
        extract_features(source, centre_view(world.images["depth"]), "bottleneck", own),
        extract_features(source, world, "bottleneck", lambda x: own.encode(centre_view(x))),
        extract_features(source, labelled, "bottleneck"),
    ]
    truth = source.eval().features(encoded).detach()
    for found in forms:
        np.testing.assert_allclose(found["bottleneck"], truth, atol=1e-5)


def test_floats_of_any_size_and_a_list_of_pictures_give_the_same():
    network, x = small(), pictures()
    wanted = extract_features(network, x, "3")["3"]
    for images in (x.double(), x.double().numpy(), list(x), list(x.numpy()), [x[:4].double(), x[4:]]):
        np.testing.assert_array_equal(extract_features(network, images, "3")["3"], wanted)
    np.testing.assert_allclose(extract_features(network, x.half(), "3")["3"], wanted, atol=0.01)
    np.testing.assert_allclose(extract_features(network.bfloat16(), x, "3")["3"], wanted, atol=0.05)


class Twice(nn.Module):
    """A layer that is called twice, one that returns a tuple, one a dict, one no tensor, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.pair = Returning(lambda x: (None, [x + 1, x]))
        self.named = Returning(lambda x: {"a": x + 2})
        self.text = Returning(lambda x: "text")
        self.total = Returning(lambda x: x.sum(0))
        self.never = nn.Linear(4, 4)
        self.box = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.shared(self.norm(self.shared(x))))
        self.text(x), self.total(x), self.named(x)
        return self.box[0](self.pair(x)[1][0])


class Returning(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor):
        return self.answer(x)


def test_layers_that_are_shared_or_return_more_than_a_tensor():
    network, x = seeded(Twice), torch.randn(6, 4)
    found = extract_features(network, x)
    assert list(found) == ["shared", "norm", "pair", "named", "box.0"]
    with torch.no_grad():
        once = network.eval().norm(network.shared(x))
        twice = network.shared(once)
    np.testing.assert_allclose(found["shared"], twice, atol=1e-6)
    np.testing.assert_allclose(found["pair"], network.norm(twice).detach() + 1, atol=1e-6)
    np.testing.assert_allclose(found["named"], network.norm(twice).detach() + 2, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("never", "'never' of Twice is never called"),
        ("box", "'box' of Twice is never called"),
        ("text", "returns a str without a tensor"),
        ("total", r"returns \(4,\) for a batch of 6 images"),
    ],
)
def test_layer_without_features_is_told(layer, words):
    network = seeded(Twice)
    before = trace(network)
    with pytest.raises(LabError, match=words):
        extract_features(network, torch.ones(6, 4), ["shared", layer])
    assert same(before, trace(network))


def test_networks_of_others():
    x = pictures(4, side=32)
    with torch.no_grad():
        resnet = seeded(torchvision.models.resnet18)
        stem = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
        block = resnet.layer1(stem)
        wide = seeded(vgg)
        convnext = seeded(torchvision.models.convnext_tiny)
        vit = seeded(lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32))
        tokens = vit.encoder(torch.cat([vit.class_token.expand(4, 1, 16), _patches(vit, x)], dim=1))
        expected = (
            (resnet, "layer1", block.mean((2, 3))),
            (resnet, "avgpool", resnet.layer4(resnet.layer3(resnet.layer2(block))).mean((2, 3))),
            (wide, "features", wide.features(x).mean((2, 3))),
            (convnext, "features.1", convnext.features[:2](x).mean((2, 3))),
            (vit, "encoder", tokens.mean(1)),
        )
    for network, layer, truth in expected:
        found = extract_features(network, x, layer, batch=3)[layer]
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-4)
    # an attention's projection is never called as a module: a pattern leaves it out
    found = extract_features(vit, x, "encoder.layers.encoder_layer_0.*")
    assert "encoder.layers.encoder_layer_0.self_attention" in found
    assert "encoder.layers.encoder_layer_0.self_attention.out_proj" not in found


def _patches(vit: nn.Module, x: Tensor) -> Tensor:
    return vit.conv_proj(x).flatten(2).transpose(1, 2)


def test_channels_by_kind_of_layer():
    network = nn.Sequential(nn.Conv1d(3, 5, 1), nn.Unflatten(1, (5, 1)), nn.LayerNorm(7))
    x = torch.randn(4, 3, 7)
    widths = {name: rows.shape[1] for name, rows in extract_features(network, x).items()}
    assert widths == {"0": 5, "1": 5, "2": 7}


def test_features_are_float32_also_within_autocast():
    network, x = small(), pictures()
    full = extract_features(network, x, "3")["3"]
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(extract_features(network, x, "3")["3"], full)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), {}, r"not torch.uint8 \(4, 3, 8, 8\): give a transform"),
        (["a.png"], {}, "not <class 'str'>"),
        ([], {}, "no images"),
        (pictures(0), {}, "no images"),
        (patterned(4, 0), {}, "normalisation"),
        ([pictures(1, 8)[0], pictures(1, 10)[0]], {}, "several sizes: give batches"),
        (pictures()[:, :1], {}, r"Sequential does not run on images \(10, 1, 8, 8\) .*: give \(B, C, H, W\)"),
        (
            pictures().permute(0, 2, 3, 1),
            {},
            r"\(10, 8, 8, 3\) .*channels forward, as images.permute",
        ),
        (pictures(), {"layers": []}, "No layer is named"),
        (pictures(), {"batch": 0}, "batch is 0; a pass takes 1 image or more"),
        (pictures(), {"layers": 5}, "by its name or a pattern, not by 5"),
    ],
)
def test_what_cannot_be_read_is_told(images, options, words):
    with pytest.raises(LabError, match=words):
        extract_features(small()[:4], images, **options)


def test_pooled_features_of_images_of_several_sizes():
    found = extract_features(small()[:4], [pictures(2, 8), pictures(3, 12)], "0")
    assert found["0"].shape == (5, 6)


# no trace


def test_a_look_leaves_everything_as_it_was():
    network = small()
    network.train()
    network[1].eval()
    before = trace(network)
    extract_features(network, pictures(), "*")
    norm_statistics(network, pictures())
    assert same(before, trace(network))


class Fault(Exception):
    pass


@pytest.mark.parametrize("fault", [Fault, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("look", "place"),
    [
        (extract_features, "images"), (extract_features, "network"),
        (norm_statistics, "images"), (norm_statistics, "network"),
    ],
)  # fmt: skip
def test_a_fault_leaves_everything_as_it_was(fault, place, look):
    network = small().train()

    def images() -> Iterator[Tensor]:
        yield pictures(4)
        torch.rand(3)
        if place == "images":
            raise fault
        yield pictures(4)

    def fail(*_: object) -> None:
        raise fault

    if place == "network":
        network[5].forward = fail
    before = trace(network)
    with pytest.raises(fault):
        look(network, images())
    assert same(before, trace(network))


def test_random_numbers_in_a_network_are_the_same_at_every_look():
    network = nn.Sequential(Returning(lambda x: x + torch.rand(x.shape)))
    first, again = (extract_features(network, pictures(), "0")["0"] for _ in range(2))
    np.testing.assert_array_equal(first, again)


# norm statistics


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_norm_statistics_are_those_of_all_images_at_once(batch):
    network = small()
    x = 1e3 + 5 * pictures(40)  # a mean far from zero, where sums of squares would cancel
    found = norm_statistics(network, x.split(batch))
    assert [one.name for one in found] == ["1", "6"]
    with torch.no_grad():
        network.eval()
        inputs = [network[:1](x).double(), network[:6](x).double()]
    for one, seen in zip(found, inputs, strict=True):
        layer = network.get_submodule(one.name)
        places = [d for d in range(seen.ndim) if d != 1]
        tight = {"rtol": 1e-6 if batch == 40 else 1e-4, "atol": 1e-4}
        torch.testing.assert_close(one.mean, seen.mean(places), **tight)
        torch.testing.assert_close(one.var, seen.var(places, correction=0), **tight)
        assert one.count == seen.numel() // seen.shape[1]
        assert one.eps == layer.eps
        torch.testing.assert_close(one.running_mean, layer.running_mean.double())
        torch.testing.assert_close(one.running_var, layer.running_var.double())
        assert {t.dtype for t in (one.running_mean, one.running_var, one.mean, one.var)} == {torch.float64}


def test_norm_statistics_merge_exactly():
    """A layer that sees the images themselves: to the last digits of float64, however they are cut."""
    network = nn.Sequential(nn.BatchNorm2d(3))
    x = (1e4 + torch.randn(500, 3, 4, 4, generator=torch.Generator().manual_seed(1))).double()
    whole = x.numpy().astype(np.longdouble)
    cuts = x.float().split([1, 99, 7, 393])
    exact = x.float().numpy().astype(np.longdouble)
    (found,) = norm_statistics(network, list(cuts))
    np.testing.assert_allclose(found.mean, exact.mean((0, 2, 3)).astype(float), rtol=1e-14)
    np.testing.assert_allclose(found.var, exact.var((0, 2, 3)).astype(float), rtol=1e-10)
    assert np.abs(whole.mean() - 1e4) < 0.1


def test_a_norm_layer_that_is_called_twice_sees_both():
    network, x = seeded(Twice), torch.randn(6, 4)
    (found,) = norm_statistics(network, x)
    with torch.no_grad():
        first = network.eval().shared(x)
        both = torch.cat([first, network.shared(network.norm(first))]).double()
    torch.testing.assert_close(found.mean, both.mean(0))
    torch.testing.assert_close(found.var, both.var(0, correction=0))
    assert found.count == 12


def test_norm_statistics_of_the_lab_and_of_torchvision():
    world = patterned(6, 0).only("rgb")
    network = small_network(3, width=8)
    found = norm_statistics(network, world, measure(world.images["rgb"], "rgb"))
    assert len(found) == 13 and found[-1].name == "bottleneck.1"
    assert [len(one.mean) for one in found[:2]] == [8, 8]
    for make, layers in ((torchvision.models.resnet18, 20), (vgg, 8)):
        assert len(norm_statistics(seeded(make), pictures(2, 32))) == layers


def test_network_without_batch_norm_is_told_what_to_measure_instead():
    words = "ConvNeXt has no batch-norm statistics.*none.*compare its features instead, with extract_features"
    with pytest.raises(LabError, match=words):
        norm_statistics(seeded(torchvision.models.convnext_tiny), pictures(2, 32))
    forgetful = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(LabError, match="only without running statistics"):
        norm_statistics(forgetful, pictures())

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm.forward(x)

    with pytest.raises(LabError, match="No batch-norm layer of Around was called"):
        norm_statistics(Around(), pictures())
