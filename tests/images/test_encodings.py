"""How depth is read: each encoding against geometry that can be written down."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import patterned

from socketlab.errors import LabError
from socketlab.images import encodings
from socketlab.images.encodings import DEPTH_ENCODINGS, Normalisation, focal_of, measure
from socketlab.images.paired_images import centre_view

SIDE = 56


def rays(focal, side=SIDE):
    """(3, side, side) float64: where each pixel looks, z = 1."""
    across = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    u, v = across.expand(side, side), across[:, None].expand(side, side)
    return torch.stack([u / (focal[0] * side), v / (focal[1] * side), torch.ones(side, side)])


def plane(normal, distance, focal, side=SIDE):
    """(1, 1, side, side) metres of the plane n · p = −distance, seen from the front everywhere."""
    towards = (torch.tensor(normal, dtype=torch.float64)[:, None, None] * rays(focal, side)).sum(0)
    assert (towards < 0).all()
    return (-distance / towards)[None, None].float()


@st.composite
def facing_normals(draw):
    """Unit normals of planes that the whole of a picture sees from the front, with focal lengths."""
    tilt, turn = draw(st.floats(0, 50)), draw(st.floats(0, 360))
    focal = (draw(st.floats(1.0, 1.6)), draw(st.floats(1.0, 1.6)))
    tilt, turn = math.radians(tilt), math.radians(turn)
    return (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), -math.cos(tilt)), focal


@given(facing_normals(), st.floats(0.6, 6), st.floats(0, 0.6), st.integers(0, 99))
@settings(max_examples=40)
def test_a_plane_has_its_own_normal_everywhere_however_much_is_missing(facing, distance, lost, seed):
    normal, focal = facing
    depth = plane(normal, distance, focal)
    holes = torch.rand(depth.shape, generator=torch.Generator().manual_seed(seed)) < lost
    found = encodings.surface_normals(depth.masked_fill(holes, 0), focal)
    known = found.square().sum(1) > 0.5
    assert not found[:, :, holes[0, 0]].any()
    assert known.float().mean() > 0.9 * (1 - lost)
    expected = torch.tensor(normal).float()[None, :, None, None].expand_as(found)
    cosine = (found * expected).sum(1)[known]
    assert torch.rad2deg(cosine.clamp(-1, 1).acos()).max() < 0.5


def test_a_line_of_pixels_has_no_normal():
    depth = plane((0, 0, -1), 2, (1.0, 1.0))
    line = torch.zeros_like(depth)
    line[..., 20, :] = depth[..., 20, :]
    assert not encodings.surface_normals(line, (1.0, 1.0)).any()
    assert not encodings.surface_normals(torch.zeros_like(depth)).any()


def test_a_mirrored_picture_has_mirrored_normals():
    """A flip before the encoding is a flip of the room: x changes its sign, which no flip after can do."""
    depth = plane((0.4, 0.3, -math.sqrt(0.75)), 2, encodings.FOCAL)
    ours, theirs = (encodings.surface_normals(d) for d in (depth.flip(3), depth))
    mirrored = theirs.flip(3) * torch.tensor([-1.0, 1, 1])[:, None, None]
    torch.testing.assert_close(ours, mirrored, atol=1e-3, rtol=0)


@given(st.lists(st.integers(100, 65_535), min_size=4, max_size=30))
def test_inverse_depth_is_its_own_inverse(millimetres):
    depth = torch.tensor(millimetres, dtype=torch.float64).view(1, 1, 1, -1) / 1000
    back = 1 / encodings.inverse_depth(depth)
    torch.testing.assert_close(back, depth)
    order = depth.flatten().argsort()
    assert (encodings.inverse_depth(depth).flatten()[order].diff() <= 0).all()


@given(st.floats(0.5, 3), st.floats(-0.4, 5), st.integers(0, 99))
def test_relative_depth_knows_neither_scale_nor_distance(scale, shift, seed):
    depth = 1 + 3 * torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed)).double()
    depth[:, :, :4, :4] = 0
    seen = depth > 0
    moved = torch.where(seen, scale * depth + shift, 0)
    found = encodings.relative_depth(depth)
    torch.testing.assert_close(encodings.relative_depth(moved), found)
    for picture, mask in zip(found, seen, strict=True):
        assert float(picture[mask].mean()) == pytest.approx(0, abs=1e-9)
        assert float(picture[mask].std(correction=0)) == pytest.approx(1)
        assert not picture[~mask].any()
    assert not encodings.relative_depth(torch.full((1, 1, 4, 4), 2.0)).any()


def test_colours_go_from_red_over_green_to_blue():
    depth = torch.tensor([1.0, 2.0, 3.0, 0.0]).view(1, 1, 1, 4)
    red, green, blue, missing = encodings.colour_map(depth)[0, :, 0].T
    for colour, channel in ((red, 0), (green, 1), (blue, 2)):
        assert colour.argmax() == channel and 0 <= colour.min() <= colour.max() <= 1
    assert not missing.any()


def room(focal, pitch=0.0, height=1.2, far=4.0, side=SIDE):
    """A floor and a wall as a camera sees them that looks down by ``pitch`` degrees; and which way is up."""
    angle = math.radians(pitch)
    up = torch.tensor([0.0, -math.cos(angle), -math.sin(angle)], dtype=torch.float64)
    ahead = torch.tensor([0.0, -math.sin(angle), math.cos(angle)], dtype=torch.float64)
    looks = rays(focal, side)
    down, on = -(up[:, None, None] * looks).sum(0), (ahead[:, None, None] * looks).sum(0)
    floor = torch.where(down > 0, height / down.clamp(min=1e-9), torch.inf)
    wall = torch.where(on > 0, far / on.clamp(min=1e-9), torch.inf)
    return torch.minimum(floor, wall)[None, None].float(), up.float(), floor < wall


@pytest.mark.parametrize("pitch", [0, 12, 25])
def test_gravity_is_found_and_the_three_channels_are_those_of_the_room(pitch):
    focal = (1.1, 1.1)
    depth, up, floor = room(focal, pitch)
    normals = encodings.surface_normals(depth, focal)
    found = encodings.estimated_up(normals)[0]
    assert torch.rad2deg((found * up).sum().clamp(-1, 1).acos()) < 3
    inverse, height, angle = encodings.hha(depth, focal, normals)[0]
    torch.testing.assert_close(inverse, 1 / depth[0, 0])
    assert height[floor].max() < 0.15
    inside = torch.zeros_like(floor)
    inside[4:-4, 4:-4] = True
    deep = floor & floor.roll(-4, 0) & floor.roll(4, 0) & inside
    high = ~floor & ~floor.roll(-4, 0) & ~floor.roll(4, 0) & inside
    assert angle[deep].max() < 0.1
    assert (angle[high] - math.pi / 2).abs().max() < 0.1
    wall = (encodings.points(depth, focal)[0] * up[:, None, None]).sum(0)[high] + 1.2
    torch.testing.assert_close(height[high], wall, atol=0.2, rtol=0)


def test_without_floor_or_walls_the_cameras_up_is_taken():
    level = torch.tensor([[0.0, -1, 0]])
    torch.testing.assert_close(encodings.estimated_up(torch.zeros(1, 3, 8, 8)), level)
    wall = encodings.surface_normals(plane((0, 0, -1), 2, (1.0, 1.0)), (1.0, 1.0))
    torch.testing.assert_close(encodings.estimated_up(wall), level, atol=0.02, rtol=0)


@pytest.mark.parametrize("encoding", DEPTH_ENCODINGS)
def test_every_encoding_gives_three_standard_channels_and_missing_is_the_mean(encoding):
    stored = patterned(12, 0).images["depth"].clone()
    holes = torch.rand(stored.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    stored.view(torch.int16)[holes] = 0
    stored.view(torch.int16)[0] = 0  # a picture with nothing in it
    found = measure(stored, "depth", encoding)
    view = centre_view(stored)
    encoded = found.encode(view)
    assert encoded.dtype is torch.float32 and encoded.shape == (12, 3, 56, 56)
    assert encoded.isfinite().all()
    missing = (view.view(torch.int16) == 0).expand_as(encoded)
    assert not encoded[missing].any()  # the mean, and never as near
    full = measure(view, "depth", encoding) if encoding == "metric" else found
    encoded = full.encode(view)
    for channel in encoded.unbind(1):
        seen = channel[~missing[:, 0]]
        seen = seen[seen != 0]
        assert float(seen.mean()) == pytest.approx(0, abs=0.02)
        assert float(seen.std(correction=0)) == pytest.approx(1, abs=0.02)
    again = Normalisation.from_dict(json.loads(json.dumps(found.as_dict())))
    assert torch.equal(again.encode(view), found.encode(view))


def test_a_metric_header_is_that_of_networks_written_before():
    plain = Normalisation("depth", (0.5,) * 3, (0.25,) * 3)
    assert set(plain.as_dict()) == {"modality", "mean", "std"}
    normals = Normalisation("depth", (0.0,) * 3, (1.0,) * 3, "normals", focal_of(70))
    assert set(normals.as_dict()) == {"modality", "mean", "std", "depth_encoding", "focal"}
    rgb = Normalisation("rgb", (0.0,) * 3, (1.0,) * 3, "normals")
    assert set(rgb.as_dict()) == {"modality", "mean", "std"}


@pytest.mark.parametrize("modality", ["rgb", "depth"])
def test_slices_measure_what_the_whole_does(monkeypatch, modality):
    images = patterned(23, 3).images[modality].clone()
    if modality == "depth":
        images.view(torch.int16)[:5] = 0  # slices without any depth
        images.view(torch.int16)[7, :, :40] = 0
    whole = measure(images, modality)
    monkeypatch.setattr(encodings, "MOST_AT_ONCE", 2 * images[0].numel())
    parts = measure(images, modality)
    assert parts.mean == pytest.approx(whole.mean, rel=1e-5)
    assert parts.std == pytest.approx(whole.std, rel=1e-5)
    values = images.to(torch.float64)
    chosen = values[values > 0] / 8000 if modality == "depth" else values[:, 0] / 255
    assert parts.mean[0] == pytest.approx(float(chosen.mean()), rel=1e-6)
    assert parts.std[0] == pytest.approx(float(chosen.std(correction=0)), rel=1e-6)


def test_short_wave_infrared_is_read_as_near_infrared_is():
    grey = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    near, short = measure(grey, "nir"), measure(grey, "swir")
    assert (near.mean, near.std) == (short.mean, short.std)
    assert torch.equal(near.encode(grey), short.encode(grey))


def test_what_cannot_be_encoded_is_named():
    depth = patterned(3, 0).images["depth"]
    with pytest.raises(LabError, match="depth_encoding 'sepia' is unknown"):
        measure(depth, "depth", "sepia")
    with pytest.raises(LabError, match="every pixel is 0"):
        measure(torch.zeros(2, 1, 8, 8), "depth", "normals")
    with pytest.raises(LabError, match="1 to 170 degrees"):
        focal_of(180)
    with pytest.raises(LabError, match="modality 'sound' is unknown"):
        measure(depth, "sound")
