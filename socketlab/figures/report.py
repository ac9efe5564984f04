"""The one-page report of a run: plain values in, HTML out; that of a comparison has the same template.

The page stands alone: style, pictures and film are inside it, and its content policy forbids any request.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from socketlab.figures.film import fragment, page_script, script_policy


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


@dataclass(frozen=True)
class Report:
    """All that the report of a run shows, as plain values.

    Parameters
    ----------
    scores : first the source network, then the method, last the oracle when there is one.
    held_out_images, adapted_images : how many target images each accuracy was measured on.
    settings : name → value, in the order of the table.
    rerun : the command line that makes this run again.
    selection : how the reported network was chosen.
    labels : what labels were used for.
    notes : further sentences: what is missing, what to bear in mind.
    figures : in their order; the accuracies per class stand beside the first.
    things : what the networks name.
    film : `Film.data` of the features of every epoch, or None.
    """

    title: str
    subtitle: str
    scores: Sequence[Score]
    has_oracle: bool
    classes: Sequence[str]
    held_out_images: int
    adapted_images: int
    settings: Mapping[str, object]
    rerun: str
    wall_seconds: float
    selection: str
    labels: str
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    things: str = "rooms"
    film: Mapping[str, Any] | None = None


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


def percent(share: float | None) -> str:
    """Return a share as text, one digit after the point and a space that does not break; a dash for None."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def render(film: Mapping[str, Any] | None = None, **parts: Any) -> str:
    """Return a page as HTML that needs no other file; all texts are escaped.

    The template beside this file names the parts. Of the headline what stands in ``**`` is bold.
    """
    about = {"film": film and fragment(film), "script": page_script(), "policy": script_policy()}
    return _template().render(parts | about)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("socketlab.figures", "")
    environment = jinja2.Environment(autoescape=True, loader=loader)
    environment.filters |= {"percent": percent, "base64": lambda data: base64.b64encode(data).decode("ascii")}
    return environment.get_template("report.html.j2")


def page(report: Report) -> str:
    """Return the report of a run as one HTML page."""
    scores = report.scores
    recalls = [
        (name, *(percent(score.recalls[index]) for score in scores))
        for index, name in enumerate(report.classes)
    ]
    recalls.append(("mean", *(percent(score.class_mean) for score in scores)))
    parts = vars(report) | {
        "headline": _headline(report),
        "bars": [(score.name, score.held_out) for score in scores],
        "tables": [_accuracies(report)],
        "remarks": [
            ("Which network is reported", report.selection),
            ("What labels were used for", report.labels),
        ],
        "beside": Table(("class", *(s.name for s in scores)), recalls, title="Held-out accuracy per class"),
        "seconds": f"Training and evaluation took {report.wall_seconds:.0f} seconds.",
    }
    return render(**parts)


def _headline(report: Report) -> str:
    source, method = report.scores[0], report.scores[1]
    text = (
        f"On {report.held_out_images} held-out target images, {method.name} names "
        f"**{percent(method.held_out)}** of the {report.things} right; the source network alone, "
        f"**{percent(source.held_out)}**."
    )
    if not report.has_oracle:
        return text + " There is no oracle to compare with."
    oracle = report.scores[-1].held_out
    closed = gap_closed(source.held_out, method.held_out, oracle)
    text += f" The oracle, trained with target labels, reaches **{percent(oracle)}**"
    if closed is None:
        return text + ": there is no gap to close."
    return text + f"; **{100 * closed:.0f}\u00a0%** of the gap is closed."


def _accuracies(report: Report) -> Table:
    held_out = f"held-out ({report.held_out_images} images)"
    adapted_to = f"adapted to ({report.adapted_images} images)"
    rows = []
    for score in report.scores:
        low, high = interval(score.held_out, score.effective_images or report.held_out_images)
        ends = f"{100 * low:.0f} to {100 * high:.0f}\u00a0%"
        shares = (percent(share) for share in (score.class_mean, score.adapted_to))
        rows.append((score.name, percent(score.held_out), ends, *shares))
    about = (
        "Held-out images were never shown to the method. The last column is transductive: it is measured on "
        "the very images that were adapted to. The interval covers the choice of images, not that of seeds."
    )
    return Table(("", held_out, "95 % interval", "class mean (held-out)", adapted_to), rows, about=about)
