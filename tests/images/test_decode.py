"""Pictures to arrays: no bit of depth is lost or invented, and every modality is cut alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from socketlab.images import decode
from socketlab.images.decode import Picture, decode_picture, placed_focal


def nearest(values: np.ndarray, size: int, fit: str) -> np.ndarray:
    return decode.squared(Image.fromarray(values), size, fit)


def test_all_16_bits_of_depth_survive(tmp_path):
    """Every value there is, through a PNG rotated by three bits as well; 65535 alone is missing depth."""
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rotated = ((every.astype(np.uint32) << 3) % 65536 | every >> 13).astype(np.uint16)
    for unit, pixels in (("millimetres", every), ("rotated", rotated)):
        Image.fromarray(pixels).save(tmp_path / f"{unit}.png")
        stored = decode_picture(Picture(tmp_path / f"{unit}.png", "depth", unit), 256, "centre")
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, np.where(every == 65535, 0, every)[None])


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(decode.FITS))
def test_depth_is_taken_from_the_pixel_under_the_centre(height, width, size, fit):
    values = np.arange(1, height * width + 1, dtype=np.uint16).reshape(height, width)
    small = nearest(values, size, fit)
    assert small.dtype == np.uint16 and small.shape == (size, size)
    _, across, down = decode.placed(width, height, size, fit)
    side = min(height, width)
    left, top, wide, high = 0.0, 0.0, width, height
    if fit == "centre":
        left, top, wide, high = (width - side) / 2, (height - side) / 2, side, side
    pad_x, pad_y = (size - across) // 2, (size - down) // 2
    for y in range(size):
        for x in range(size):
            if pad_y <= y < pad_y + down and pad_x <= x < pad_x + across:
                v, u = top + (y - pad_y + 0.5) * high / down, left + (x - pad_x + 0.5) * wide / across
                near = {values[int(v + e), int(u + f)] for e in (-1e-6, 1e-6) for f in (-1e-6, 1e-6)}
                assert small[y, x] in near  # a centre on the border of two pixels lies under both
            else:
                assert small[y, x] == 0


def test_no_depth_is_invented_by_resizing():
    near_and_far = np.where(np.arange(90)[:, None] % 2, 1000, 60000).astype(np.uint16).repeat(70, axis=1)
    assert set(np.unique(nearest(near_and_far, 32, "centre"))) <= {1000, 60000}


def test_colours_are_resized_with_antialiasing(tmp_path):
    """Stripes a pixel wide become their mean; the nearest pixel would be one or the other."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = decode_picture(Picture(tmp_path / "stripes.png", "colour"), 16, "centre")
    assert small.shape == (3, 16, 16)
    assert abs(small.astype(int) - 100).max() <= 12


def test_a_view_is_the_same_in_colour_and_depth(tmp_path):
    """A step across a picture of any shape stays at one place in both modalities, for every fit."""
    step = np.zeros((60, 100), np.uint16)
    step[:, 55:] = 255
    Image.fromarray(step).save(tmp_path / "depth.png")
    Image.fromarray(step.astype(np.uint8)).save(tmp_path / "rgb.png")
    for fit in decode.FITS:
        depth = decode_picture(Picture(tmp_path / "depth.png", "depth"), 40, fit)[0]
        rgb = decode_picture(Picture(tmp_path / "rgb.png", "colour"), 40, fit)[0]
        assert (abs(depth.astype(int) - rgb) > 128).sum() == 0


def test_letterbox_keeps_all_and_stretch_fills(tmp_path):
    Image.fromarray(np.full((30, 60), 7, np.uint16)).save(tmp_path / "wide.png")
    picture = Picture(tmp_path / "wide.png", "depth")
    boxed, stretched = decode_picture(picture, 20, "letterbox")[0], decode_picture(picture, 20, "stretch")[0]
    assert (boxed[5:15] == 7).all() and (boxed[:5] == 0).all() and (boxed[15:] == 0).all()
    assert (stretched == 7).all()


@given(st.integers(20, 90), st.integers(20, 90), st.integers(8, 64), st.sampled_from(decode.FITS))
def test_focal_lengths_follow_the_picture(width, height, size, fit):
    """What is kept of the picture is seen under the same angle, across and down."""
    f_x, f_y = placed_focal((50.0, 55.0), width, height, size, fit)
    (left, top, right, bottom), across, down = decode.placed(width, height, size, fit)
    assert across / f_x == pytest.approx((right - left) / 50.0)
    assert down / f_y == pytest.approx((bottom - top) / 55.0)


def test_sixteen_bits_of_infrared_become_eight(tmp_path):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "nir.tiff")
    stored = decode_picture(Picture(tmp_path / "nir.tiff", "grey"), 16, "centre")
    np.testing.assert_array_equal(stored[0].ravel(), np.arange(256))
