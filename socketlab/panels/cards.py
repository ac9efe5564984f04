"""Scenes as cards, in HTML: their images in every modality, class and predictions.

The explorer is built of them, and `Mistakes`, a menu of the cells of a confusion matrix. True classes are for
the reader alone: no method computes with them.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numpy.typing import ArrayLike
from PIL import Image as Pillow

from socketlab.figures import figures, style
from socketlab.images.paired_images import PairedImages
from socketlab.panels.base import named, text_box

SIDE, MOST = 72, 24  # of a thumbnail, CSS pixels; images of a mistake
STYLE = Path(__file__).with_name("cards.css").read_text(encoding="utf-8")


def written(name: str) -> str:
    """A class name as text for the page: underscores are spaces."""
    return html.escape(style.spaced(name))


def image_url(image: ArrayLike, modality: str, reach: float = 0.0) -> str:
    """A stored image in colours for the eye, as a data URL; `reach`: its largest value, or a farther end."""
    pixels = np.asarray(image)
    reach = reach or max(float(pixels.max()), 1.0)
    if modality not in style.MODALITIES:
        pixels, modality = (255 * np.clip(pixels / reach, 0, 1)).astype(np.uint8), "nir"
    made, file = Pillow.fromarray(figures.paint(pixels, modality, reach)), io.BytesIO()
    # depth is made small without averaging: between two depths is no depth
    smoothed = Pillow.Resampling.NEAREST if modality == "depth" else Pillow.Resampling.BICUBIC
    made.thumbnail((2 * SIDE, 2 * SIDE), smoothed)
    made.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class Cards:
    """Cards of scenes, as HTML; classes are by default those of the images."""

    def __init__(self, images: PairedImages, classes: Sequence[str] = ()) -> None:
        self.images, self.classes = images, tuple(classes) or images.classes
        stored = {m: some.cpu() for m, some in images.images.items()}
        reach = {m: float(np.percentile(some, 99)) for m, some in stored.items()}
        self.url = cache(lambda m, scene: image_url(stored[m][scene], m, reach[m]))

    def prediction(self, label: int, share: float | None = None) -> str:
        """A predicted class and, if known, its probability, as HTML that stays on one line."""
        words = self.classes[label] + ("" if share is None else f" {100 * share:.0f} %")
        return written(words).replace(" ", "&nbsp;")

    def card(self, scene: int, lines: Sequence[str], points: Mapping[str, int] | None = None) -> str:
        """One scene: number and true class, images, and lines of HTML below them.

        `points` has, for a modality, the number of the scene's point on a map.
        """
        views, kind, name = "", self.images.kinds[scene], html.escape(self.images.names[scene])
        for modality in self.images.modalities:
            title = html.escape(style.modality_style(modality).short)
            point = f' data-point="{points[modality]}"' if points and modality in points else ""
            alt = f"{title} image of scene {scene}"
            views += f'<figure{point}><img src="{self.url(modality, scene)}" alt="{alt}"></figure>'
        known = ""
        if kind in self.classes:
            colour = style.class_colour(self.classes.index(kind))
            known = f' <b style="background:{colour}"></b>{written(kind)}'
        below = "".join(f"<p>{line}</p>" for line in lines)
        return (
            f'<div class="socketlab-card" role="listitem" title="{name}">'
            f'<p class="head"><small>#{scene}</small>{known}</p><div>{views}</div>{below}</div>'
        )


class Mistakes(widgets.VBox):
    """A menu of the commonest mistakes of a network, and the images behind the one that is chosen."""

    def __init__(self) -> None:
        about: dict[str, Any] = {"layout": {"width": "34em"}, "style": {"description_width": "auto"}}
        menu = widgets.Dropdown(description="mistakes", tooltip="to see their images", **about)
        self.menu = named("mistakes", menu)
        self.cards = text_box("mistake-images")
        super().__init__([self.menu, self.cards])
        self.menu.observe(lambda _: self._show(), "value")
        self.clear()

    def clear(self) -> None:
        """Offer nothing."""
        self.menu.options, self.menu.disabled = [("no run yet", None)], True

    def of(self, images: PairedImages, answers: ArrayLike, title: str, most: int = 12) -> None:
        """Offer the mistakes among (n,) predicted classes of labelled images; the commonest is shown."""
        table = pd.DataFrame({"label": images.labels.cpu().numpy(), "answer": np.asarray(answers)})
        wrong, self._shown = table[table["label"] != table["answer"]], Cards(images)
        offered: list[Any] = [(f"{title}: {len(wrong)} of {len(table)}", None)]
        for (label, answer), count in wrong.value_counts().head(most).items():
            names = [style.spaced(images.classes[number]) for number in (label, answer)]
            rows = wrong.index[(wrong["label"] == label) & (wrong["answer"] == answer)]
            offered.append((f"{count} × {' taken for '.join(names)}", (answer, tuple(rows[:MOST]))))
        more, self.menu.options = len(offered) > 1, offered
        self.menu.index, self.menu.disabled = int(more), not more

    def _show(self) -> None:
        """Show images of the mistake chosen, or none."""
        self.cards.value = ""
        if self.menu.value is not None:
            answer, rows = self.menu.value
            line = f"predicted: {self._shown.prediction(answer)}"
            made = "".join(self._shown.card(row, [line]) for row in rows)
            head = f"<style>{STYLE}</style><p><strong>{html.escape(self.menu.label)}</strong></p>"
            self.cards.value = f'{head}<div class="socketlab-cards" role="list">{made}</div>'
