"""Points of a map and their images as cards: thumbnails in every modality, class and predictions, as HTML.

`show_images` is the way from a picture to the images behind it: from a cell of a confusion matrix, a point of
a map, a bar. What it returns is shown by a notebook, by `widgets.HTML` and in a report; the explorer is built
of the same cards. True classes are for the reader alone: no method computes with them.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from socketlab.errors import LabError
from socketlab.figures import figures
from socketlab.figures.figures import Cloud
from socketlab.images.paired_images import PairedImages

Indices = NDArray[np.int32]
UNKNOWN = -1
MOST_SHOWN = 24
SIDE = 72  # of a thumbnail, CSS pixels
STYLE = Path(__file__).with_name("cards.css").read_text(encoding="utf-8")
_KEPT_THUMBNAILS = 4000


class Markup(str):
    """Safe HTML: text for a widget or a report, shown as a picture of itself by a notebook."""

    def _repr_html_(self) -> str:
        return str(self)


def on_cpu(given: ArrayLike) -> NDArray[Any]:
    """Return numbers as an array on the CPU, whatever device they are on."""
    return given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)


def written(name: str) -> str:
    """Return a class name as text for the page: underscores are spaces."""
    return html.escape(name.replace("_", " "))


# ------------------------------------------------------------------------ points


def as_cloud(name: str, given: Cloud | ArrayLike) -> Cloud:
    """Return a cloud with checked positions; a plain array is of the modality that it is named after.

    Raises
    ------
    LabError : positions that are not (n, 2) or not finite.
    """
    cloud = given if isinstance(given, Cloud) else Cloud(np.asarray(given, np.float32), name, name)
    positions = np.asarray(cloud.points, np.float32)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise LabError(f"The points {name!r} have shape {positions.shape}; a map needs (n, 2).")
    if not np.isfinite(positions).all():
        raise LabError(f"The points {name!r} hold NaN or infinite numbers; they cannot be put on a map.")
    return replace(cloud, points=positions)


def point_table(
    clouds: Mapping[str, Cloud],
    scenes: Mapping[str, ArrayLike],
    scene_labels: ArrayLike,
    logits: Mapping[str, Mapping[str, ArrayLike]],
) -> pd.DataFrame:
    """Line up all points, cloud after cloud: set, point, modality, scene, label, and each prediction.

    Parameters
    ----------
    scenes : name -> (n,) the scene of each point; without it, point i of a cloud is scene i.
    scene_labels : (S,) true class of each scene; a cloud's own labels come first.
    logits : "before" and "after" -> name -> (n, K).

    Returns
    -------
    N rows; classes are numbers, UNKNOWN (-1) where there is none.

    Raises
    ------
    LabError : no points, names of no cloud, lengths that do not fit.
    """
    if not any(len(cloud.points) for cloud in clouds.values()):
        raise LabError("There is nothing to explore: no points were given.")
    if unknown := sorted({name for given in (scenes, *logits.values()) for name in given} - set(clouds)):
        raise LabError(f"{unknown} are no sets of points; there are {', '.join(clouds)}.")
    parts = []
    for name, cloud in clouds.items():
        count = len(cloud.points)
        scene = _numbers(scenes.get(name, np.arange(count)), count, name, "scene")
        known = np.append(np.asarray(scene_labels, np.int32), UNKNOWN)
        inside = np.where((scene >= 0) & (scene < len(known) - 1), scene, -1)
        label = known[inside] if cloud.labels is None else _numbers(cloud.labels, count, name, "class")
        part = {
            "set": name,
            "point": np.arange(count),
            "modality": cloud.modality,
            "scene": scene,
            "label": label,
        }
        for word, given in logits.items():
            part[word], part[f"{word}_confidence"] = _predicted(given.get(name), count, name)
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _numbers(given: ArrayLike, count: int, name: str, what: str) -> Indices:
    found = np.asarray(given)
    if found.shape != (count,):
        raise LabError(f"{name!r} has {count} points, but {what} numbers of shape {found.shape}.")
    return found.astype(np.int32)


def _predicted(logits: ArrayLike | None, count: int, name: str) -> tuple[Any, Any]:
    """(n,) classes and their probabilities; UNKNOWN and 0 without logits."""
    if logits is None:
        return np.int32(UNKNOWN), np.float32(0)
    values = torch.as_tensor(on_cpu(logits))
    if values.ndim != 2 or len(values) != count:
        shape = tuple(values.shape)
        raise LabError(f"{name!r} has {count} points, but logits of shape {shape}: (n, K) needed.")
    top, index = values.float().softmax(dim=1).max(dim=1)
    return index.int().numpy(), top.numpy()


# ------------------------------------------------------------------------ thumbnails


class Thumbnails:
    """Small pictures of scenes, made on first use.

    Parameters
    ----------
    images : modality -> (n, C, H, W) images (uint8, uint16 millimetres, or float). Scene i is row i, and a
        modality may have fewer scenes than another.

    Raises
    ------
    LabError : images with another number of channels than 1 or 3.
    """

    def __init__(self, images: Mapping[str, Any], side: int = SIDE) -> None:
        self.images, self.side = dict(images), side
        self._made: dict[tuple[str, int], str] = {}
        for modality, some in self.images.items():
            if len(some.shape) != 4 or some.shape[1] not in (1, 3):
                shape = tuple(some.shape)
                raise LabError(f"{modality!r} images have shape {shape}; thumbnails need (n, 1 or 3, H, W).")
        self._range = {m: _range_of(some) for m, some in self.images.items() if len(some)}

    def picture(self, modality: str, scene: int) -> Pillow.Image:
        """Return colours for the eye, at most twice as large as shown: near is bright, missing depth pink."""
        image = on_cpu(self.images[modality][scene])
        low, high = self._range[modality]
        depth = modality == "depth" and len(image) == 1 and np.issubdtype(image.dtype, np.integer)
        if depth and image.dtype != np.uint8:
            places = np.where(image[0] == 0, 0, 1 + 254 * np.clip(image[0] / high, 0, 1)).astype(np.uint8)
            made = Pillow.fromarray(places)
            made.putpalette(_depth_palette())  # made small without averaging: between two depths is no depth
        else:
            if image.dtype != np.uint8:
                image = 255 * np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
            shown = np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))
            made = Pillow.fromarray(shown[..., 0] if len(image) == 1 else shown)
        made.thumbnail((2 * self.side, 2 * self.side))
        return made

    def url(self, modality: str, scene: int) -> str | None:
        """Return the picture as a data URL (JPEG for colours, else PNG); None where the scene has none."""
        if modality not in self.images or not 0 <= scene < len(self.images[modality]):
            return None
        key = modality, scene
        if key not in self._made:
            if len(self._made) >= _KEPT_THUMBNAILS:
                self._made.clear()
            made, file = self.picture(*key), io.BytesIO()
            kind = "jpeg" if made.mode == "RGB" else "png"
            options: dict[str, int] = (
                {"quality": 92, "subsampling": 0} if kind == "jpeg" else {"compress_level": 1}
            )
            made.save(file, kind, **options)
            self._made[key] = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
        return self._made[key]


@cache
def _depth_palette() -> bytes:
    """256 colours: missing, then from near to far, as `figures.paint` has them."""
    missing = np.array(matplotlib.colors.to_rgb(figures.MISSING))[None]
    depths = matplotlib.colormaps[figures.DEPTH_COLOURS](np.linspace(0, 1, 255))[:, :3]
    return np.round(255 * np.concatenate([missing, depths])).astype(np.uint8).tobytes()


def _range_of(images: Any) -> tuple[float, float]:
    """Values of black and white: 0 and the 99th percentile of integers, else 0 and 1 or the extremes."""
    some = on_cpu(images[:: max(1, len(images) // 64)])
    if np.issubdtype(some.dtype, np.integer):
        seen = some[some > 0]
        return 0.0, float(np.percentile(seen, 99)) if seen.size else 1.0
    low, high = float(np.nanmin(some)), float(np.nanmax(some))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))


# ------------------------------------------------------------------------ cards


def card(
    thumbnails: Thumbnails,
    scene: int,
    modalities: Sequence[str],
    *,
    label: str = "",
    colour: str = "",
    lines: Sequence[str] = (),
    name: str = "",
    points: Mapping[str, int] | None = None,
) -> str:
    """Return one scene as HTML: number and class, an image per modality, and lines below them.

    Parameters
    ----------
    label, colour : true class and its colour; "" where it is not known.
    lines : HTML.
    name : of the scene, shown under the mouse.
    points : modality -> index of the point that is this view of the scene.
    """
    views = ""
    for modality in modalities:
        title = html.escape(figures.modality_style(modality).short)
        point = f' data-point="{points[modality]}"' if points and modality in points else ""
        url = thumbnails.url(modality, scene)
        image = f'<img src="{url}" alt="{title} image of scene {scene}">' if url else f"<i>no {title}</i>"
        views += f"<figure{point}>{image}</figure>"
    known = f' <b style="background:{colour}"></b>{written(label)}' if label else ""
    below = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<div class="socketlab-card" role="listitem" title="{html.escape(name)}">'
        f'<p class="head"><small>#{scene}</small>{known}</p><div>{views}</div>{below}</div>'
    )


def show_images(
    images: PairedImages | Mapping[str, Any],
    rows: ArrayLike,
    *,
    title: str = "",
    logits: ArrayLike | None = None,
    classes: Sequence[str] = (),
    most: int = MOST_SHOWN,
) -> Markup:
    """Return some scenes as cards: for example those of a cell of a confusion matrix.

    Parameters
    ----------
    images : paired images, or modality -> (n, C, H, W).
    rows : numbers of the scenes, or n truth values; of more than `most`, evenly spaced ones are shown.
    title : plain text above them.
    logits : (n, K) logits, or (n,) predicted classes; each card names the prediction.
    classes : K names; by default those of the images.
    """
    paired = images if isinstance(images, PairedImages) else None
    stored: Mapping[str, Any] = paired.images if paired is not None else images  # type: ignore[assignment]
    known = tuple(classes) or (paired.classes if paired is not None else ())
    chosen = on_cpu(rows)
    chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.atleast_1d(chosen).astype(int)
    shown = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int))]
    thumbnails = Thumbnails(stored)
    made = ""
    for scene in shown.tolist():
        kind = paired.kinds[scene] if paired is not None and paired.classes else ""
        colour = figures.class_colour(known.index(kind)) if kind in known else figures.PALE
        line = [] if logits is None else [f"predicted: {prediction(on_cpu(logits)[scene], known)}"]
        name = paired.names[scene] if paired is not None else ""
        made += card(thumbnails, scene, list(stored), label=kind, colour=colour, lines=line, name=name)
    counted = f" ({len(shown)} of {len(chosen)} shown)" if len(shown) < len(chosen) else ""
    head = f"<p><strong>{html.escape(title)}</strong>{counted}</p>" if title or counted else ""
    return Markup(f'<style>{STYLE}</style>{head}<div class="socketlab-cards" role="list">{made}</div>')


def prediction(logits: NDArray[Any], classes: Sequence[str]) -> str:
    """Return a prediction as HTML: the class and, of logits (K,), its probability."""
    label = int(logits.argmax()) if logits.ndim else int(logits)
    name = written(classes[label] if label < len(classes) else f"class {label}").replace(" ", "&nbsp;")
    if not logits.ndim:
        return name
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return f"{name}&nbsp;{100 * shares[label] / shares.sum():.0f}&nbsp;%"
