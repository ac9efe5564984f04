"""Pictures: what they show, that they can be read, and that they say it in words too."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from worlds import patterned

from socketlab.errors import LabError
from socketlab.figures import figures, style
from socketlab.images.paired_images import PairedImages

CLASSES = ("bedroom", "kitchen", "living_room")


def three_modalities(count: int = 4) -> PairedImages:
    generator = torch.Generator().manual_seed(0)
    depth = torch.randint(800, 5000, (count, 1, 16, 16), generator=generator, dtype=torch.int32)
    depth[:, :, :4, :4] = 0
    images = {
        "rgb": torch.randint(0, 255, (count, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "nir": torch.randint(0, 255, (count, 1, 16, 16), generator=generator, dtype=torch.uint8),
        "depth": depth.to(torch.uint16),
    }
    return PairedImages(images, tuple("abcd"[:count]), ("living_room",) * count)


def clouds() -> dict[str, figures.Cloud]:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 12, 2)).astype(np.float32)
    return {
        "a": figures.Cloud(points[0], "rgb", "pairs, RGB"),
        "b": figures.Cloud(points[1], "depth", "pairs, depth"),
        "c": figures.Cloud(points[2], "depth", "target", np.arange(12) % 3),
    }


def every_picture() -> dict[str, object]:
    counts = np.array([[8, 1, 0], [2, 5, 0], [0, 0, 0]])
    return {
        "triptych": figures.triptych(three_modalities()),
        "curves": figures.curves(
            {"shot": (range(4), [0.2, 0.3, 0.4, 0.5])}, levels={"chance": 0.1}, title="T"
        ),
        "confusion": figures.confusion_matrix(counts, CLASSES, title="T"),
        "bars": figures.accuracy_bars({"shot": [0.4, 0.5], "socket": 0.9}, chance=0.1, title="T"),
        "map": figures.feature_map(clouds(), CLASSES, links=("a", "b"), title="T"),
        "map by modality": figures.feature_map(clouds(), CLASSES, hue="modality", title="T"),
    }


@pytest.mark.parametrize("name", list(every_picture()))
def test_every_picture_is_opaque_described_and_large_enough_to_read(name: str) -> None:
    picture = every_picture()[name]
    image = Image.open(io.BytesIO(style.png(picture)))  # type: ignore[arg-type]
    assert image.convert("RGBA").getextrema()[3] == (255, 255)
    assert len(style.alt_text(picture).split()) >= 6  # type: ignore[arg-type]
    figure = picture if hasattr(picture, "axes") and hasattr(picture, "savefig") else picture.figure  # type: ignore
    words = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    assert words
    assert min(t.get_fontsize() for t in words) >= 12


def test_show_hands_the_description_to_the_notebook() -> None:
    shown = figures.show(figures.accuracy_bars({"socket": 0.9}))
    _, about = shown._repr_png_()
    assert "socket 90 %" in about["alt"]
    assert about["width"] == 760


def test_missing_depth_has_a_colour_that_no_depth_has() -> None:
    missing = figures.paint(np.zeros((1, 1, 1), np.uint16), "depth")[0, 0]
    depths = figures.paint(np.arange(1, 12000, dtype=np.uint16).reshape(1, 1, -1), "depth")[0]
    assert np.abs(depths.astype(int) - missing.astype(int)).sum(axis=1).min() > 150
    assert depths[0].astype(int).sum() > depths[-1].astype(int).sum()  # near is brighter than far


def test_paint_keeps_colour_and_grey_as_they_are() -> None:
    rooms = three_modalities()
    rgb = rooms.images["rgb"][0].numpy()
    assert (figures.paint(rgb, "rgb") == rgb.transpose(1, 2, 0)).all()
    nir = figures.paint(rooms.images["nir"][0].numpy(), "nir")
    assert (nir[..., 0] == nir[..., 2]).all()
    with pytest.raises(LabError, match="sonar"):
        figures.paint(rgb, "sonar")


def test_triptych_shows_the_same_room_in_a_column_and_refuses_what_is_not_there() -> None:
    figure = figures.triptych(three_modalities(), [2, 0])
    pictures = figure.axes[0].images
    assert len(pictures) == 6
    expected = figures.paint(three_modalities().images["rgb"][2].numpy(), "rgb")
    assert (np.asarray(pictures[0].get_array()) == expected).all()
    assert figure.axes[0].get_xticklabels()[0].get_text() == "living room"
    with pytest.raises(LabError, match="no nir images"):
        figures.triptych(patterned(4, 0))
    with pytest.raises(LabError, match="2 images"):
        figures.gallery({"RGB": ("rgb", three_modalities().images["rgb"])}, ["a", "b"])


def test_confusion_matrix_writes_percent_of_the_true_class() -> None:
    counts = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    ax = figures.confusion_matrix(counts, CLASSES)
    written = {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts if t.get_text()}
    assert written == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
    assert "bedroom taken for kitchen (1 times)" in style.alt_text(ax)
    assert "83 % right" in style.alt_text(ax)
    with pytest.raises(LabError, match="3 classes"):
        figures.confusion_matrix(np.ones((2, 2)), CLASSES)


def test_names_at_the_ends_of_curves_do_not_overlap() -> None:
    same = {f"run {i}": ([0, 1], [0.1, 0.5]) for i in range(4)}
    ax = figures.curves(same, levels={"chance": 0.5})
    heights = sorted(t.xy[1] for t in ax.texts)
    points = ax.get_position().height * ax.figure.get_figheight() * 72
    assert min(np.diff(heights)) * points >= style.TEXT


def test_bars_show_the_mean_and_every_seed() -> None:
    ax = figures.accuracy_bars({"shot": [0.4, 0.6], "socket": 0.9})
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.5, 0.9])
    assert len(ax.collections[0].get_offsets()) == 2
    assert [t.get_text() for t in ax.get_yticklabels()] == ["SHOT", "SOCKET"]


def test_marker_is_the_modality_and_hue_the_class() -> None:
    ax = figures.feature_map(clouds(), CLASSES)
    rgb, depth, target = ax.collections
    assert len(rgb.get_facecolors()) == 1
    assert len(np.unique(target.get_facecolors(), axis=0)) == 3
    assert len(rgb.get_paths()[0].vertices) != len(depth.get_paths()[0].vertices)
    assert np.array_equal(depth.get_paths()[0].vertices, target.get_paths()[0].vertices)
    with pytest.raises(LabError, match="hue"):
        figures.feature_map(clouds(), CLASSES, hue="taste")


def test_class_colours_stay_apart_under_colour_vision_deficiency() -> None:
    """Distances after the deuteranope and protanope reduction of Viénot, Brettel and Mollon (1999)."""
    colours = np.array([matplotlib.colors.to_rgb(style.class_colour(i)) for i in range(8)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(8, 1)]
        assert apart.min() > 0.06


def test_plots_leave_pyplot_alone() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    every_picture()
    assert plt.get_fignums() == before
