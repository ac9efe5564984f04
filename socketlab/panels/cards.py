"""Points of a map and their images as cards: thumbnails in every modality, class and predictions, as HTML.

`show_images` is the way from a picture (a cell of a confusion matrix, a bar) to the images behind it, and
`Mistakes` a menu of such cells; the explorer is built of the same cards. True classes are for the reader
alone: no method computes with them.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow

from socketlab.errors import LabError
from socketlab.figures import figures, style
from socketlab.figures.map_figures import Cloud
from socketlab.images.paired_images import PairedImages
from socketlab.panels.base import Control, named, text_box

Indices = NDArray[np.int32]
Images = PairedImages | Mapping[str, Any]
UNKNOWN = -1
SIDE = 72  # of a thumbnail, CSS pixels
STYLE = Path(__file__).with_name("cards.css").read_text(encoding="utf-8")


class Markup(str):
    """Safe HTML: text for a widget or a report, shown as a picture of itself by a notebook."""

    def _repr_html_(self) -> str:
        return str(self)


def on_cpu(given: ArrayLike) -> NDArray[Any]:
    """Return numbers as an array on the CPU, whatever device they are on."""
    return given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)


def written(name: str) -> str:
    """Return a class name as text for the page: underscores are spaces."""
    return html.escape(style.spaced(name))


def point_table(
    clouds: Mapping[str, Cloud], scene_labels: Sequence[int], logits: Mapping[str, Mapping[str, ArrayLike]]
) -> pd.DataFrame:
    """Line up all points, cloud after cloud: set, point, modality, scene, label, and each prediction.

    Point i is a view of scene i. A cloud's own labels come before those of the scenes. Classes are numbers,
    UNKNOWN (-1) where there is none. `logits` are "before" and "after" of `Explorer`.
    """
    if not any(len(cloud.points) for cloud in clouds.values()):
        raise LabError("There is nothing to explore: no points were given.")
    if unknown := sorted({name for given in logits.values() for name in given} - set(clouds)):
        raise LabError(f"{unknown} are no sets of points; there are {', '.join(clouds)}.")
    known, parts = pd.Series(scene_labels, dtype=np.int32), []
    for name, cloud in clouds.items():
        rows = np.arange(len(cloud.points), dtype=np.int32)
        part = pd.DataFrame({"set": name, "point": rows, "modality": cloud.modality, "scene": rows})
        part["label"] = known.reindex(rows, fill_value=UNKNOWN).to_numpy()
        if cloud.labels is not None:
            part["label"] = _per_point(cloud.labels, len(rows), name, "class numbers").astype(np.int32)
        for word, given in logits.items():
            part[word], part[f"{word}_confidence"] = np.int32(UNKNOWN), np.float32(0)
            if name in given:
                values = _per_point(given[name], len(rows), name, "logits", ndim=2)
                part[word], part[f"{word}_confidence"] = predicted(values)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _per_point(given: ArrayLike, count: int, name: str, what: str, ndim: int = 1) -> NDArray[Any]:
    """An array of so many rows, or a LabError."""
    found = on_cpu(given)
    if found.ndim != ndim or len(found) != count:
        wanted = f"({count}, K)" if ndim > 1 else f"({count},)"
        raise LabError(f"{name!r} has {count} points, but {what} of shape {found.shape}, not {wanted}.")
    return found


def predicted(logits: NDArray[Any]) -> tuple[Indices, NDArray[np.float32]]:
    """Return (n,) classes and their probabilities of (n, K) logits."""
    top, index = torch.as_tensor(logits).float().softmax(dim=1).max(dim=1)
    return index.int().numpy(), top.numpy()


class Cards:
    """Cards of scenes, as HTML: images in every modality (made small on first use), class, predictions.

    Names of the classes are by default those of `PairedImages`.

    Raises
    ------
    LabError : images with another number of channels than 1 or 3.
    """

    def __init__(self, images: Images, classes: Sequence[str] = ()) -> None:
        self.kinds: Sequence[str] = ()
        self.names: dict[int, str] = {}
        if isinstance(images, PairedImages):
            self.kinds, self.names = images.kinds, dict(enumerate(images.names))
            classes, images = classes or images.classes, images.images
        self.images, self.classes = dict(images), tuple(classes)
        for modality, some in self.images.items():
            if len(some.shape) != 4 or some.shape[1] not in (1, 3):
                shape = tuple(some.shape)
                raise LabError(f"{modality!r} images have shape {shape}; thumbnails need (n, 1 or 3, H, W).")
        self._range = {m: _range_of(some) for m, some in self.images.items() if len(some)}
        self.url = lru_cache(4000)(self._url)

    def class_name(self, label: int) -> str:
        """Return a class by name; "" where it is not known."""
        known = label < len(self.classes)
        return "" if label < 0 else self.classes[label] if known else f"class {label}"

    def prediction(self, label: int, share: float | None = None) -> str:
        """Return a predicted class and, if known, its probability, as HTML that stays on one line."""
        words = self.class_name(label) + ("" if share is None else f" {100 * share:.0f} %")
        return written(words).replace(" ", "&nbsp;")

    def card(self, scene: int, kind: str, lines: Sequence[str], points: Mapping[str, int | None]) -> str:
        """Return one scene: number and true class, images, and lines of HTML below them.

        `points` has the modalities shown, and for each the index of the scene's point, if it has one.
        """
        views = ""
        for modality, index in points.items():
            title = html.escape(style.modality_style(modality).short)
            point, url = "" if index is None else f' data-point="{index}"', self.url(modality, scene)
            image = f'<img src="{url}" alt="{title} image of scene {scene}">' if url else f"<i>no {title}</i>"
            views += f"<figure{point}>{image}</figure>"
        colour = style.class_colour(self.classes.index(kind)) if kind in self.classes else style.PALE
        known = f' <b style="background:{colour}"></b>{written(kind)}' if kind else ""
        below = "".join(f"<p>{line}</p>" for line in lines)
        return (
            f'<div class="socketlab-card" role="listitem" title="{html.escape(self.names.get(scene, ""))}">'
            f'<p class="head"><small>#{scene}</small>{known}</p><div>{views}</div>{below}</div>'
        )

    def picture(self, modality: str, scene: int) -> Pillow.Image:
        """Return colours for the eye, at most twice as large as shown: near is bright, missing depth pink."""
        image = on_cpu(self.images[modality][scene])
        low, high = self._range[modality]
        if modality == "depth" and len(image) == 1 and image.dtype.kind in "iu" and image.dtype != np.uint8:
            # of a palette: made small without averaging, since between two depths is no depth
            made = Pillow.fromarray(figures.paint(image, "depth", high)).quantize(256)
        else:
            if image.dtype != np.uint8:
                image = 255 * np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
            shown = np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))
            made = Pillow.fromarray(shown[..., 0] if len(image) == 1 else shown)
        made.thumbnail((2 * SIDE, 2 * SIDE))
        return made

    def _url(self, modality: str, scene: int) -> str | None:
        """The picture as a data URL (JPEG for colours, else PNG); None where the scene has none."""
        if modality not in self.images or not 0 <= scene < len(self.images[modality]):
            return None
        made, file = self.picture(modality, scene), io.BytesIO()
        kind = "jpeg" if made.mode == "RGB" else "png"
        made.save(file, kind, quality=92, subsampling=0, compress_level=1)
        return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _range_of(images: Any) -> tuple[float, float]:
    """Values of black and white: 0 and the 99th percentile of integers, else 0 and 1 or the extremes."""
    some = on_cpu(images[:: max(1, len(images) // 64)])
    if np.issubdtype(some.dtype, np.integer):
        seen = some[some > 0]
        return 0.0, float(np.percentile(seen, 99)) if seen.size else 1.0
    low, high = float(np.nanmin(some)), float(np.nanmax(some))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))


def show_images(
    images: Images, rows: ArrayLike, *, title: str = "", logits: ArrayLike | None = None, most: int = 24
) -> Markup:
    """Return some scenes as cards: for example those of a cell of a confusion matrix.

    Parameters
    ----------
    images : paired images, or modality -> (n, C, H, W).
    rows : numbers of the scenes, or n truth values; of more than `most`, evenly spaced ones are shown.
    title : plain text above them.
    logits : (n, K) logits, or (n,) predicted classes; each card names the prediction.
    """
    cards, chosen, labels, made = Cards(images), on_cpu(rows), None, ""
    chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.atleast_1d(chosen).astype(int)
    shown = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int))]
    if logits is not None:
        given = on_cpu(logits)
        labels, shares = predicted(given) if given.ndim == 2 else (given, [None] * len(given))
    for scene in shown.tolist():
        kind = cards.kinds[scene] if cards.kinds else ""
        answer = "" if labels is None else cards.prediction(int(labels[scene]), shares[scene])
        words = [f"predicted: {answer}"] if answer else []
        made += cards.card(scene, kind if kind in cards.classes else "", words, dict.fromkeys(cards.images))
    counted = f" ({len(shown)} of {len(chosen)} shown)" if len(shown) < len(chosen) else ""
    head = f"<p><strong>{html.escape(title)}</strong>{counted}</p>" if title or counted else ""
    return Markup(f'<style>{STYLE}</style>{head}<div class="socketlab-cards" role="list">{made}</div>')


class Mistakes(widgets.VBox):
    """A menu of the commonest mistakes of a network, and the images behind the one that is chosen."""

    def __init__(self) -> None:
        self.menu = named("mistakes", Control("mistakes", None, "to see their images", options=[""]).widget())
        self.menu.layout, self.menu.style = {"width": "34em"}, {"description_width": "auto"}
        self.cards = text_box("mistake-images")
        super().__init__([self.menu, self.cards])
        self.menu.observe(lambda _: self._show(), "value")
        self.clear()

    def clear(self) -> None:
        """Offer nothing."""
        self._shown: tuple[Any, ...] = ()
        self.menu.options, self.menu.disabled = [("no run yet", None)], True

    def of(self, images: PairedImages, answers: ArrayLike, title: str, most: int = 12) -> None:
        """Offer the mistakes among (n,) predicted classes of labelled images; the commonest is shown."""
        given, labels = on_cpu(answers).astype(int), on_cpu(images.labels)
        self._shown, wrong = (images, given), (labels >= 0) & (labels != given)
        table, class_name = pd.DataFrame({"label": labels, "answer": given})[wrong], Cards(images).class_name
        offered: list[Any] = [(f"{title}: {wrong.sum()} of {(labels >= 0).sum()}", None)]
        for cell, count in table.value_counts().head(most).items():
            label, answer = (style.spaced(class_name(number)) for number in cell)
            offered.append((f"{count} × {label} taken for {answer}", cell))
        more, self.menu.options = len(offered) > 1, offered
        self.menu.index, self.menu.disabled = int(more), not more

    def _show(self) -> None:
        """Show the images of the mistake chosen, or none."""
        self.cards.value = ""
        if self.menu.value is not None:
            images, given = self._shown
            label, answer = self.menu.value
            rows = (on_cpu(images.labels) == label) & (given == answer)
            self.cards.value = show_images(images, rows, title=self.menu.label, logits=given)
