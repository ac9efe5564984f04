"""The sensors err as published, no more and no less, and only as their generator tells them to."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, max_pool2d

from socketlab.errors import LabError
from socketlab.images import sensors
from socketlab.images.sensors import SENSORS, see_depth, see_light, sensor_named

NAMES = list(SENSORS)
strengths = st.floats(0, 3, allow_subnormal=False)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def wall(metres, count=4):
    """A wall that faces the camera."""
    return torch.full((count, 1, 80, 80), round(metres * 1000), dtype=torch.int32).to(torch.uint16)


def grey(value, count=4, channels=1):
    return torch.full((count, channels, 80, 80), value, dtype=torch.uint8)


def room(count=2):
    """A slanted floor, a wall, and a box in front: edges, a missing corner, dark things."""
    rows = torch.arange(80.0)[:, None].expand(80, 80)
    z = torch.where(rows > 50, 4.0 * 10 / (rows - 40).clamp(min=1), torch.tensor(4.0))
    z[20:60, 30:50] = 1.5
    z[:5, :5] = 0
    light = 40 + 2 * rows
    light[20:40, 30:50] = 3
    depth = (z * 1000).round().to(torch.int32).to(torch.uint16)
    return depth.expand(count, 1, 80, 80).clone(), light.to(torch.uint8).expand(count, 1, 80, 80).clone()


def metres(depth):
    return depth.to(torch.float64) / 1000


def missing_share(depth):
    return (depth.to(torch.int32) == 0).double().mean().item()


# --- the published figures


PUBLISHED = {  # standard deviation in metres of a facing white wall, as the papers write it
    "kinect_v1": lambda z: 1.425e-3 * z**2,
    "kinect_v2": lambda z: (1.5 - 0.5 * z + 0.3 * z**2) / 1000,
    "realsense": lambda z: 0.00241809 + 0.00662547 * (z - 0.77199589) ** 2,
    "xtion": lambda z: 0.0012 + 0.0019 * (z - 0.4) ** 2,
}


@pytest.mark.parametrize("z", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_noise_of_a_wall_is_the_published_one(name, z):
    seen = metres(see_depth(wall(z), grey(220), name, 1.0, seeded()))
    seen = seen[seen > 0]
    expected = PUBLISHED[name](z)
    assert seen.std().item() == pytest.approx(expected, rel=0.1)
    assert seen.mean().item() == pytest.approx(z, abs=0.15 * expected + 0.0005)


@pytest.mark.parametrize("name", ["kinect_v1", "realsense"])
def test_the_noise_follows_the_strength(name):
    half, double = (metres(see_depth(wall(2), grey(220), name, s, seeded())) for s in (0.5, 2.0))
    assert double[double > 0].std() / half[half > 0].std() == pytest.approx(4, rel=0.12)


@pytest.mark.parametrize("z", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["kinect_v1", "xtion"])
def test_structured_light_has_steps_of_z_squared(name, z):
    """Khoshelham and Oude Elberink 2012: 2.85e-3 z² between neighbouring values, 7 cm at 5 m."""
    levels = metres(see_depth(wall(z), grey(220), name, 1.0, seeded())).unique()
    middle = (levels[1:] + levels[:-1]) / 2
    step = levels.diff() / (2.85e-3 * middle**2)
    assert step == pytest.approx(torch.ones_like(step), abs=0.001 / (2.85e-3 * z**2) + 0.01)  # whole mm


def test_time_of_flight_has_no_steps():
    levels = metres(see_depth(wall(4), grey(220), "kinect_v2", 1.0, seeded())).unique()
    assert levels.diff().median().item() == pytest.approx(0.001)


def test_dark_walls_are_noisier_for_time_of_flight_only():
    def ratio(name):
        dark, bright = (metres(see_depth(wall(1), grey(v), name, 1.0, seeded())) for v in (32, 128))
        return dark[dark > 0].std() / bright[bright > 0].std()

    assert ratio("kinect_v2") == pytest.approx(2, rel=0.1)  # a quarter of the light
    assert ratio("kinect_v1") == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_dark_surfaces_drop_out(name):
    shares = [missing_share(see_depth(wall(3), grey(v), name, 1.0, seeded())) for v in (220, 12, 4, 0)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.95
    assert shares[2] > shares[0] + 0.1


def test_dark_surfaces_drop_out_with_distance():
    shares = [missing_share(see_depth(wall(z), grey(20), "kinect_v2", 1.0, seeded())) for z in (1, 3, 4.4)]
    assert shares[0] == 0
    assert 0.1 < shares[1] < shares[2]


def test_realsense_holes_come_in_patches():
    lost = see_depth(wall(3.4, 40), grey(220, 40), "realsense", 1.0, seeded()).to(torch.int32) == 0
    share = lost.double().mean().item()
    beside = (lost[..., 1:] & lost[..., :-1]).double().mean().item() / share
    assert share == pytest.approx(0.12 * (3.4 / 3.5) ** 2, rel=0.15)
    assert beside > 0.75  # independent pixels would have `share`


# --- geometry


@pytest.mark.parametrize("name", NAMES)
def test_the_crop_has_the_sensors_field_of_view(name):
    """A plane x = k tan(angle), written as depth, read back at the outermost pixels."""
    half_view = math.tan(math.radians(70.6 / 2))
    tangent = ((torch.arange(80.0) + 0.5) / 40 - 1) * half_view
    ramp = (10000 + 5000 * tangent).round().to(torch.int32).to(torch.uint16)
    across = ramp.expand(1, 1, 80, 80)
    seen = (see_depth(across, grey(220, 1), name, 0, seeded()).to(torch.float64) - 10000) / 5000
    half = math.tan(math.radians(SENSORS[name].fov_deg / 2))
    pixel = 2 * half_view / 80
    assert seen[0, 0, 0, 0].item() == pytest.approx(-half * 63 / 64, abs=pixel / 2 + 1e-3)
    assert seen[0, 0, 0, -1].item() == pytest.approx(half * 63 / 64, abs=pixel / 2 + 1e-3)
    assert (seen == seen[..., :1, :]).all()
    down = see_depth(across.mT.contiguous(), grey(220, 1), name, 0, seeded()).to(torch.float64)
    assert torch.equal((down.mT - 10000) / 5000, seen)


def test_the_fields_of_view():
    assert {name: sensor.fov_deg for name, sensor in SENSORS.items()} == {
        "kinect_v1": 57.0, "kinect_v2": 70.6, "realsense": 59.0, "xtion": 58.0,
    }  # fmt: skip


def test_the_smooth_crop_is_torchs_antialiased_one():
    images = torch.rand(2, 3, 80, 80, generator=seeded())
    whole = interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
    assert sensors.crop_smooth(images, 70.6) == pytest.approx(whole, abs=1e-5)
    flat = sensors.crop_smooth(torch.ones(1, 1, 80, 80), 57.0, blur=0.7)
    assert flat == pytest.approx(torch.ones_like(flat), abs=1e-5)


@pytest.mark.parametrize(("near", "far"), [(1.0, 3.0), (0.6, 4.0)])
def test_the_shadow_lies_left_and_is_as_wide_as_the_disparities_differ(near, far):
    z = torch.full((1, 1, 64, 64), far)
    z[..., 20:40, 30:40] = near
    hidden = sensors.shadow(z, 57.0, 0.075)[0, 0]
    focal = 32 / math.tan(math.radians(28.5))
    width = focal * 0.075 * (1 / near - 1 / far)
    assert hidden[30].sum().item() == pytest.approx(width, abs=1)
    assert hidden[30].nonzero().max() == 29
    assert not hidden[:20].any()
    assert not hidden[40:].any()


def test_a_slanted_plane_has_neither_edges_nor_shadows():
    slope = torch.linspace(0.2, 0.8, 80)
    z = (1 / slope).expand(1, 1, 80, 80)
    for plane in (z, z.mT, z.flip(-1)):
        assert not sensors.depth_edges(plane).any()
        assert not sensors.shadow(plane[..., :64, :64], 57.0, 0.075).any()


def test_edges_are_where_the_depth_jumps():
    z = torch.full((1, 1, 80, 80), 3.0)
    z[..., 40:] = 2.0
    z[..., :10, :10] = 0
    assert sensors.depth_edges(z)[0, 0, 50].nonzero().flatten().tolist() == [39, 40]
    assert not sensors.depth_edges(z)[..., :12, :12].any()


def test_flying_pixels_lie_between_near_and_far():
    depth, nir = room(8)
    depth = torch.where(depth.to(torch.int32) == 1500, 1500, 4000).to(torch.uint16)
    seen = metres(see_depth(depth, torch.full_like(nir, 220), "kinect_v2", 1.0, seeded()))
    assert ((seen > 1.6) & (seen < 3.9)).double().mean() > 0.005
    solid = metres(see_depth(depth, torch.full_like(nir, 220), "kinect_v1", 1.0, seeded()))
    assert not ((solid > 1.6) & (solid < 3.9)).any()


def test_structured_light_loses_edges_and_shadows():
    depth, nir = room(8)
    lost = see_depth(depth, torch.full_like(nir, 220), "kinect_v1", 1.0, seeded()).to(torch.int32) == 0
    by_column = lost[..., 20:40, :].double().mean(dim=(0, 1, 2))
    left, right = by_column[:32], by_column[32:]
    assert left.sum() > right.sum() + 0.5
    assert right.sum() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_range(name):
    sensor = SENSORS[name]
    for millimetres, seen in (
        (sensor.near_mm, 1),
        (sensor.far_mm, 1),
        (sensor.near_mm - 1, 0),
        (sensor.far_mm + 1, 0),
    ):
        depth = torch.full((1, 1, 80, 80), millimetres, dtype=torch.int32).to(torch.uint16)
        picture = see_depth(depth, grey(255, 1), name, 1.0, seeded())
        assert (picture.to(torch.int32) > 0).any() == bool(seen)
        assert missing_share(see_depth(depth, grey(255, 1), name, 0, seeded())) == 0


# --- strength


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_is_the_perfect_view(name):
    depth, nir = room()
    positions = sensors.view_positions(SENSORS[name].fov_deg).floor().long()
    expected = depth.to(torch.int32)[..., positions, :][..., positions]
    seen = see_depth(depth, nir, name, 0, seeded())
    assert seen.dtype == torch.uint16
    assert torch.equal(seen.to(torch.int32), expected)
    rgb = torch.randint(0, 256, (2, 3, 80, 80), generator=seeded()).to(torch.uint8)
    for images in (rgb, nir):
        perfect = sensors.crop_smooth(images.float(), SENSORS[name].fov_deg)
        assert see_light(images, name, 0, seeded()).float() == pytest.approx(perfect, abs=0.51)
    assert torch.equal(
        see_light(grey(77, 1, 3), name, 0, seeded()), torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)
    )


@given(name=st.sampled_from(NAMES), pair=st.tuples(strengths, strengths), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=40)
def test_more_strength_loses_more_and_nothing_comes_back(name, pair, seed):
    depth, nir = room(1)
    weak, strong = sorted(pair)
    lost_weak = see_depth(depth, nir, name, weak, seeded(seed)).to(torch.int32) == 0
    lost_strong = see_depth(depth, nir, name, strong, seeded(seed)).to(torch.int32) == 0
    assert not (lost_weak & ~lost_strong).any()


@given(name=st.sampled_from(NAMES), strength=strengths, seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=40)
def test_missing_stays_missing_and_nothing_wraps_around(name, strength, seed):
    depth, nir = room(1)
    depth = depth.to(torch.int32)
    depth[..., 60:] = 65535
    depth[..., 70:] = 1
    view = depth.to(torch.uint16)
    seen = see_depth(view, nir, name, strength, seeded(seed)).to(torch.int32)
    ideal = see_depth(view, nir, name, 0, seeded()).to(torch.int32)
    assert (seen[ideal == 0] == 0).all()
    nearest = -max_pool2d(-ideal.float(), 3, stride=1, padding=1)  # flying pixels lie between near and far
    assert (seen[(nearest == 65535) & (seen > 0)] > 10000).all()
    assert (seen[(max_pool2d(ideal.float(), 3, stride=1, padding=1) == 1) & (seen > 0)] < 2000).all()


@given(name=st.sampled_from(NAMES), pair=st.tuples(strengths, strengths))
@settings(deadline=None, max_examples=30)
def test_more_strength_is_more_error(name, pair):
    weak, strong = sorted(pair)
    if strong - weak < 0.2:
        return
    errors = []
    for strength in (weak, strong):
        seen = metres(see_depth(wall(2.5, 1), grey(220, 1), name, strength, seeded()))
        errors.append((seen[seen > 0] - 2.5).square().mean().item())
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", NAMES)
def test_colour_noise_grows_with_strength(name):
    pictures = (
        see_light(grey(120, 4, 3), name, strength, seeded()).double() for strength in (0, 0.5, 1, 2, 3)
    )
    deviations = [picture[..., 24:40, 24:40].std(dim=(0, 2, 3)).mean().item() for picture in pictures]
    assert deviations[0] == 0
    assert deviations == sorted(deviations)
    assert deviations[-1] > 3 * deviations[1]


def test_sensors_render_colour_differently():
    means = torch.stack(
        [see_light(grey(128, 2, 3), name, 1.0, seeded()).double().mean((0, 2, 3)) for name in NAMES]
    )
    apart = torch.cdist(means, means) + 1000 * torch.eye(len(NAMES))
    assert apart.min() > 5
    assert (means - 128).abs().max() < 50


def test_near_infrared_is_noisy_too():
    for name in NAMES:
        seen = see_light(grey(128), name, 1.0, seeded()).double()
        assert seen[..., 24:40, 24:40].std() > 1
        assert seen[..., 32, 32].mean() > seen[..., 0, 0].mean() + 5


# --- seeds


def all_three(name, seed):
    depth, nir = room()
    generator = seeded(seed)
    return (
        see_depth(depth, nir, name, 1.0, generator).to(torch.int32),
        see_light(nir.expand(-1, 3, -1, -1), name, 1.0, generator),
        see_light(nir, name, 1.0, generator),
    )


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name):
    """The same seed gives the same bits, another seed others; the two images of a batch differ as well."""
    first, again, other = all_three(name, 1), all_three(name, 1), all_three(name, 2)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a[0], a[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_not_touched(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    all_three(name, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_arguments_are_not_changed():
    depth, nir = room()
    copies = depth.to(torch.int32), nir.clone()
    for name in NAMES:
        see_depth(depth, nir, name, 2.0, seeded())
        see_light(nir, name, 2.0, seeded())
    assert torch.equal(depth.to(torch.int32), copies[0])
    assert torch.equal(nir, copies[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_sees_what_the_cpu_sees(name):
    depth, nir = room()
    here = see_depth(depth, nir, name, 1.0, seeded()).to(torch.int32)
    there = see_depth(depth.cuda(), nir.cuda(), name, 1.0, seeded())
    assert there.is_cuda
    assert ((there.cpu().to(torch.int32) - here).abs() > 1).double().mean() < 0.002  # a rounding on a step
    own = see_depth(depth.cuda(), nir.cuda(), name, 1.0, torch.Generator("cuda").manual_seed(0))
    assert own.is_cuda


# --- what is refused


def test_unknown_sensor_lists_the_known():
    with pytest.raises(LabError, match=r"'kinect'.*kinect_v1, kinect_v2, realsense, xtion"):
        see_depth(wall(2), grey(200), "kinect", 1.0, seeded())
    assert sensor_named("xtion") is sensor_named(SENSORS["xtion"])


@pytest.mark.parametrize("strength", [-0.1, 3.1, math.nan, math.inf])
def test_strength_out_of_range(strength):
    with pytest.raises(LabError, match="from 0 to 3"):
        see_depth(wall(2), grey(200), "xtion", strength, seeded())
    with pytest.raises(LabError, match="from 0 to 3"):
        see_light(grey(200, 4, 3), "xtion", strength, seeded())


def test_wrong_views_are_named():
    right = {"depth": wall(2), "nir": grey(200)}
    wrong = {
        "depth": [wall(2).to(torch.int32), wall(2)[0], wall(2)[..., :64, :64]],
        "nir": [grey(200).float(), grey(200, 4, 3)],
    }
    for name, cases in wrong.items():
        for case in cases:
            with pytest.raises(LabError, match=rf"The {name} views must be .*\(N, 1, 80, 80\)"):
                see_depth(**{**right, name: case}, sensor="xtion", strength=1.0, generator=seeded())
    with pytest.raises(LabError, match="The rgb views must be"):
        see_light(grey(200, 4, 3).float(), "xtion", 1.0, seeded())
    for case in (grey(200, 4, 2), grey(200)[..., :64, :64]):
        with pytest.raises(LabError, match="The nir views must be"):
            see_light(case, "xtion", 1.0, seeded())


@pytest.mark.parametrize("name", NAMES)
def test_no_images_are_no_trouble(name):
    assert see_depth(wall(2, 0), grey(200, 0), name, 1.0, seeded()).shape == (0, 1, 64, 64)
    assert see_light(grey(200, 0, 3), name, 1.0, seeded()).shape == (0, 3, 64, 64)
