"""The one-page report of a run: plain values in, HTML out; that of a comparison has the same template.

The page stands alone: style, pictures and film are inside it, and its content policy forbids any request.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from socketlab.figures.film import Film, fragment, page_script, script_policy


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] of the target images that a network names right.

    Parameters
    ----------
    adapted_to : on the images that were adapted to (transductive); None for an oracle.
    recalls : on held-out images per class, in the order of the classes; None for a class without images.
    effective_images : how many independent images the held-out ones are worth; None: all are independent.
    """

    name: str
    held_out: float
    adapted_to: float | None
    recalls: Sequence[float | None]
    effective_images: float | None = None

    @property
    def class_mean(self) -> float:
        """Mean of the recalls: every class counts the same."""
        known = [recall for recall in self.recalls if recall is not None]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Figure:
    """A picture of the report: PNG bytes, title, alternative text, caption; a wide one takes a row."""

    title: str
    png: bytes
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts, numbers aligned to the right; the first cell of a row is its heading."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True
    title: str = ""
    about: str = ""


def gap_closed(source: float, method: float, oracle: float) -> float | None:
    """Return the share of the way from source to oracle that the method has gone; None without a gap.

    0 for the source's own accuracy, 1 for the oracle's; below 0 when the method does harm, above 1 when it
    surpasses the oracle.
    """
    return (method - source) / (oracle - source) if oracle > source else None


def interval(share: float, count: float) -> tuple[float, float]:
    r"""Return the 95 % interval of a share that was counted on ``count`` images (Wilson, 1927).

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}, \quad z = 1.96

    It covers the choice of the images, not that of the seed.
    """
    if count == 0:
        return 0.0, 1.0
    z2 = 1.96**2
    centre = share + z2 / (2 * count)
    spread = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    return max(0.0, (centre - spread) / (1 + z2 / count)), min(1.0, (centre + spread) / (1 + z2 / count))


def share_and_interval(share: float, count: float) -> tuple[str, str]:
    """Return a share that was counted on ``count`` images, and its `interval`, as texts."""
    low, high = interval(share, count)
    return percent(share), f"{100 * low:.0f} to {100 * high:.0f}\u00a0%"


def percent(share: float | None) -> str:
    """Return a share as text, one digit after the point and a space that does not break; a dash for None."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def render(film: Film | None = None, **parts: Any) -> str:
    """Return a page as HTML that needs no other file; all texts are escaped.

    The template beside this file names the parts. Of the headline what stands in ``**`` is bold.
    """
    loader = jinja2.PackageLoader("socketlab.figures", "")
    environment = jinja2.Environment(autoescape=True, loader=loader)
    environment.filters |= {"percent": percent, "base64": lambda data: base64.b64encode(data).decode("ascii")}
    if film is not None:
        parts |= {"film": fragment(film.data()), "script": page_script(), "policy": script_policy()}
    return environment.get_template("report.html.j2").render(parts)


def page(
    *, scores: Sequence[Score], has_oracle: bool, classes: Sequence[str], images: tuple[int, int],
    wall_seconds: float, selection: str, labels: str, things: str = "rooms", **parts: Any,
) -> str:  # fmt: skip
    """Return the report of a run as one HTML page.

    Parameters
    ----------
    scores : first the source network, then the method, last the oracle when there is one.
    images : how many held-out and how many adapted-to images the accuracies were measured on.
    selection, labels : how the reported network was chosen, and what labels were used for.
    things : what the networks name.
    parts : title, subtitle, settings, rerun, notes, figures and film, as for `render`; the accuracies per
        class stand beside the first figure.
    """
    (source, method), oracle = scores[:2], scores[-1] if has_oracle else None
    headline = (
        f"On {images[0]} held-out target images, {method.name} names **{percent(method.held_out)}** of the "
        f"{things} right; the source network alone, **{percent(source.held_out)}**."
    )
    if oracle is None:
        headline += " There is no oracle to compare with."
    else:
        closed = gap_closed(source.held_out, method.held_out, oracle.held_out)
        share = "" if closed is None else f"**{100 * closed:.0f}\u00a0%**"
        headline += f" The oracle, trained with target labels, reaches **{percent(oracle.held_out)}**"
        headline += f"; {share} of the gap is closed." if share else ": there is no gap to close."
    recalls = [(name, *(percent(s.recalls[i]) for s in scores)) for i, name in enumerate(classes)]
    recalls.append(("mean", *(percent(score.class_mean) for score in scores)))
    return render(
        headline=headline,
        bars=[(score.name, score.held_out) for score in scores],
        tables=[_accuracies(scores, *images)],
        remarks=[("Which network is reported", selection), ("What labels were used for", labels)],
        beside=Table(("class", *(s.name for s in scores)), recalls, title="Held-out accuracy per class"),
        seconds=f"Training and evaluation took {wall_seconds:.0f} seconds.",
        **parts,
    )


def _accuracies(scores: Sequence[Score], held_out: int, adapted: int) -> Table:
    rows = []
    for score in scores:
        found = share_and_interval(score.held_out, score.effective_images or held_out)
        rows.append((score.name, *found, percent(score.class_mean), percent(score.adapted_to)))
    about = (
        "Held-out images were never shown to the method. The last column is transductive: it is measured on "
        "the very images that were adapted to. The interval covers the choice of images, not that of seeds."
    )
    counted = f"held-out ({held_out} images)", "95 % interval", "class mean", f"adapted to ({adapted} images)"
    return Table(("", *counted), rows, about=about)
