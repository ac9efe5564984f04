"""The paired store: rows stay together, views are joint, uint16 survives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import patterned

from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.paired_images import PairedImages, centre_view, random_views, recoloured


def numbered(count: int = 6) -> PairedImages:
    """Scenes whose two modalities hold the same number at every pixel, so that a mix-up shows."""
    place = torch.arange(64 * 64).view(1, 1, 64, 64)
    depth = place + 5000 * torch.arange(count).view(-1, 1, 1, 1)
    rgb = torch.cat([depth % 256, depth // 256 % 256, depth // 65536], dim=1)
    images = {"rgb": rgb.to(torch.uint8), "depth": depth.to(torch.int32).to(torch.uint16)}
    return PairedImages(images, tuple(map(str, range(count))), ("room",) * count)


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_fault_4_both_halves_of_a_pair_are_cut_and_flipped_alike(seed, size):
    pairs = numbered()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(6, (9,), generator=generator)
    views = random_views(pairs, rows, generator, size)
    depth, rgb = views["depth"].to(torch.int64), views["rgb"].to(torch.int64)
    assert depth.shape == (9, 1, size, size)
    assert torch.equal(rgb[:, 0] + 256 * rgb[:, 1] + 65536 * rgb[:, 2], depth[:, 0])


def test_views_are_crops_and_mirrored_crops_of_their_own_scene():
    pairs = numbered(3)
    views = random_views(pairs, torch.tensor([0, 1, 2] * 20), torch.Generator().manual_seed(0))
    depth = views["depth"].to(torch.int64)[:, 0]
    down = depth[:, 1:] - depth[:, :-1]
    across = depth[:, :, 1:] - depth[:, :, :-1]
    assert (down == 64).all()
    assert set(across.flatten().tolist()) == {1, -1}
    assert torch.equal(depth.flatten(1).min(1).values // 5000, torch.tensor([0, 1, 2] * 20))
    assert len(set(depth[::3, 0, 0].tolist())) > 5


def test_take_only_unlabelled_and_labels():
    pairs = patterned(6, 0)
    some = pairs.take([4, 0])
    assert some.names == (pairs.names[4], pairs.names[0])
    assert torch.equal(some.images["depth"][0].to(torch.int32), pairs.images["depth"][4].to(torch.int32))
    assert pairs.only("depth").modality == "depth"
    assert torch.equal(pairs.labels, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert not set(pairs.unlabelled().names) & set(pairs.names)
    with pytest.raises(LabError, match="no labels"):
        _ = pairs.unlabelled().labels
    with pytest.raises(LabError, match="only rgb, depth"):
        pairs.only("nir")


def test_a_mask_takes_the_scenes_that_it_marks():
    """Read as indices it would give the first two scenes, again and again."""
    images = numbered(6)
    mask = [False, False, False, True, True, True]
    for form in (mask, torch.tensor(mask), np.array(mask)):
        assert images.take(form).names == ("3", "4", "5")
    assert images.take(torch.zeros(6, dtype=torch.bool)).names == ()
    assert images.take([-1, 0]).names == ("5", "0") and images.take(range(2)).names == ("0", "1")
    assert images.take([]).names == ()


@pytest.mark.parametrize(
    ("indices", "told"),
    [
        ([0.5, 1.0], "whole numbers from 0 to 5, or a mask of 6"),
        ([True, False], "mask of 6 truth values"),
        ([[0, 1]], "whole numbers from 0 to 5, or a mask of 6 truth values, not ..0, 1"),
        ([6], "whole numbers from 0 to 5"),
        ([-7], "from 0 to 5.* not .-7"),
        ([1, 1], "names must be unique, but 1 come more than once"),
    ],
)
def test_indices_that_cannot_be(indices, told):
    with pytest.raises(LabError, match=told):
        numbered(6).take(indices)


def test_blocks_stay_with_their_scenes():
    images = replace(numbered(6), blocks=tuple("aabbcc"))
    assert images.take([4, 1]).blocks == ("c", "a")
    assert images.only("depth").blocks == images.blocks and images.unlabelled().blocks == ()
    with pytest.raises(LabError, match="not paired"):
        replace(images, blocks=("a",))


def test_unpaired_images_are_refused():
    images = {
        "rgb": torch.zeros(3, 3, 64, 64, dtype=torch.uint8),
        "nir": torch.zeros(2, 1, 64, 64, dtype=torch.uint8),
    }
    with pytest.raises(LabError, match="not paired"):
        PairedImages(images, ("a", "b", "c"), ("x", "x", "x"))


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(LabError, match="smaller than the crop"):
        random_views(numbered(), torch.arange(2), torch.Generator(), size=65)


def test_centre_view_is_the_middle():
    assert torch.equal(centre_view(torch.arange(16).view(1, 1, 4, 4), 2), torch.tensor([[[[5, 6], [9, 10]]]]))


def test_fault_6_depth_keeps_sixteen_bits_and_missing_is_not_near():
    depth = torch.tensor([0, 500, 8300, 40_000, 65_535], dtype=torch.int32).to(torch.uint16).view(5, 1, 1, 1)
    normalisation = encodings.Normalisation("depth", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    encoded = normalisation.encode(depth)
    assert encoded.shape == (5, 3, 1, 1)
    expected = torch.tensor([0.0, -1.75, 2.15, 18.0, 30.7675])
    torch.testing.assert_close(encoded[:, 0, 0, 0], expected)


def test_fault_7_normalisation_is_measured_per_modality_and_ignores_missing_depth():
    pairs = patterned(12, 0)
    for modality in pairs.modalities:
        found = encodings.measure(pairs.images[modality], modality)
        encoded = found.encode(pairs.images[modality])
        assert float(encoded.mean()) == pytest.approx(0, abs=1e-3)
        assert float(encoded.std()) == pytest.approx(1, abs=1e-3)
    holes = pairs.images["depth"].to(torch.int32)
    holes[:, :, :32] = 0
    half = encodings.measure(pairs.images["depth"][:, :, 32:], "depth")
    assert encodings.measure(holes.to(torch.uint16), "depth") == half
    with pytest.raises(LabError, match="every pixel is 0"):
        encodings.measure(torch.zeros(2, 1, 4, 4), "depth")
    with pytest.raises(LabError, match="must be"):
        half.encode(pairs.images["rgb"])


def test_recolouring_changes_colours_per_picture_and_keeps_shapes():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, 0, :, 4:], image[:, 1], image[:, 2, :4] = 200, 90, 150
    many = recoloured(image.repeat(40, 1, 1, 1), torch.Generator().manual_seed(0))
    assert many.dtype is torch.uint8
    assert len({tuple(picture.flatten().tolist()) for picture in many}) == 40
    patches = many[:, :, :4, :4], many[:, :, 4:, :4], many[:, :, :4, 4:], many[:, :, 4:, 4:]
    for patch in patches:  # what had one colour has one colour
        assert torch.equal(patch, patch[:, :, :1, :1].expand_as(patch))
