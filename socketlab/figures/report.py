"""The one-page report of a run: plain values in, HTML out.

The page stands alone: style and pictures are inside it, and its content policy forbids any request.
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Template


@dataclass(frozen=True)
class Score:
    """How well one network names the rooms of the target images.

    Parameters
    ----------
    name : as the table calls it.
    held_out : share of the held-out target images named right, in [0, 1].
    adapted_to : the same on the images that were adapted to (transductive); None where it says nothing.
    recalls : the held-out share per class, in the order of the classes; None for a class without images.
    """

    name: str
    held_out: float
    adapted_to: float | None
    recalls: Sequence[float | None]

    @property
    def class_mean(self) -> float:
        """Mean of the recalls, in [0, 1]: every class counts the same."""
        known = [recall for recall in self.recalls if recall is not None]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Figure:
    """A picture of the report: PNG bytes, a title, a text for those who cannot see it, and a caption.

    A wide picture takes a row for itself.
    """

    title: str
    png: bytes
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Report:
    """All that the page says, as plain values.

    Parameters
    ----------
    title, subtitle : the heading, and one line below it.
    scores : first the source network, then the method, last the oracle when there is one.
    has_oracle : whether the last score is the oracle's.
    classes : names of the classes.
    held_out_images, adapted_images : how many target images each accuracy was measured on.
    settings : name → value, in the order of the table.
    rerun : the command line that makes this run again.
    wall_seconds : how long training and evaluation took.
    selection : how the reported network was chosen.
    labels : what labels were used for.
    notes : further sentences: what is missing, what to bear in mind.
    figures : the pictures, in order; the accuracies per class stand beside the first.
    things : what the networks name.
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
    figures: Sequence[Figure] = field(default=())
    things: str = "rooms"


def gap_closed(source: float, method: float, oracle: float) -> float | None:
    """Return the share of the way from source to oracle that the method has gone; None without a gap.

    0 for the source's own accuracy, 1 for the oracle's; below 0 when the method does harm, above 1 when it
    surpasses the oracle.
    """
    return (method - source) / (oracle - source) if oracle > source else None


def interval(share: float, count: int) -> tuple[float, float]:
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


def page(report: Report) -> str:
    """Return the report as one HTML page that needs no other file."""
    body = _BODY.substitute(
        headline=_headline(report),
        bars=_bars(report.scores),
        accuracies=_accuracies(report),
        recalls=_recalls(report),
        notes="".join(note(text) for text in report.notes),
        first_figure="".join(picture(figure) for figure in report.figures[:1]),
        other_figures="".join(picture(figure) for figure in report.figures[1:]),
        selection=html.escape(report.selection),
        labels=html.escape(report.labels),
        settings=settings_table(report.settings),
        seconds=f"{report.wall_seconds:.0f}",
        rerun=html.escape(report.rerun),
    )
    return document(report.title, report.subtitle, body)


def document(title: str, subtitle: str, body: str) -> str:
    """A whole page in the reports' style; ``body`` is HTML already."""
    return _PAGE.substitute(title=html.escape(title), subtitle=html.escape(subtitle), body=body)


def note(text: str) -> str:
    """A remark beside the numbers, as HTML."""
    return f'<p class="note">{html.escape(text)}</p>'


def percent(share: float | None) -> str:
    """Return a share as text, one digit after the point and a space that does not break; a dash for None."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def _headline(report: Report) -> str:
    source, method = report.scores[0], report.scores[1]
    text = (
        f"On {report.held_out_images} held-out target images, {html.escape(method.name)} names "
        f"<strong>{percent(method.held_out)}</strong> of the {report.things} right; the source network "
        f"alone, <strong>{percent(source.held_out)}</strong>."
    )
    if not report.has_oracle:
        return text + " There is no oracle to compare with."
    oracle = report.scores[-1].held_out
    closed = gap_closed(source.held_out, method.held_out, oracle)
    text += f" The oracle, trained with target labels, reaches <strong>{percent(oracle)}</strong>"
    if closed is None:
        return text + ": there is no gap to close."
    return text + f"; <strong>{100 * closed:.0f}\u00a0%</strong> of the gap is closed."


def _bars(scores: Sequence[Score]) -> str:
    """Draw the held-out accuracies as bars; the numbers stand beside them and in the table."""
    rows = []
    for row, score in enumerate(scores):
        y, width = 34 * row, 400 * score.held_out
        rows.append(
            f'<text x="150" y="{y + 21}" text-anchor="end">{html.escape(score.name)}</text>'
            f'<rect class="track" x="162" y="{y + 6}" width="400" height="22" rx="3"/>'
            f'<rect class="bar bar{min(row, 2)}" x="162" y="{y + 6}" width="{width:.1f}" height="22" rx="3"/>'
            f'<text x="574" y="{y + 21}">{percent(score.held_out)}</text>'
        )
    words = ", ".join(f"{score.name} {percent(score.held_out)}" for score in scores)
    return (
        f'<svg class="bars" viewBox="0 0 640 {34 * len(scores)}" role="img" '
        f'aria-label="Held-out accuracy as bars: {html.escape(words)}">{"".join(rows)}</svg>'
    )


def _accuracies(report: Report) -> str:
    head = ("", f"held-out<br>({report.held_out_images} images)", "95 % interval", "class mean<br>(held-out)",
            f"adapted to<br>({report.adapted_images} images)")  # fmt: skip
    rows = []
    for score in report.scores:
        low, high = interval(score.held_out, report.held_out_images)
        between = f"{100 * low:.0f} to {100 * high:.0f}\u00a0%"
        shares = (score.held_out, score.class_mean, score.adapted_to)
        held_out, class_mean, adapted_to = map(percent, shares)
        rows.append([html.escape(score.name), held_out, between, class_mean, adapted_to])
    return table(head, rows)


def _recalls(report: Report) -> str:
    head = ("class", *(html.escape(score.name) for score in report.scores))
    rows = [
        [html.escape(name), *(percent(score.recalls[index]) for score in report.scores)]
        for index, name in enumerate(report.classes)
    ]
    rows.append(["<em>mean</em>", *(f"<em>{percent(score.class_mean)}</em>" for score in report.scores)])
    return table(head, rows)


def settings_table(settings: Mapping[str, object]) -> str:
    """Name and value, line by line, as HTML."""
    rows = [[html.escape(str(name)), html.escape(str(value))] for name, value in settings.items()]
    return table(("setting", "value"), rows, numbers=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return an HTML table; the first cell of a row is its heading. Cells are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    return f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def picture(figure: Figure) -> str:
    """A picture with title and caption, inside the page, as HTML."""
    data = base64.b64encode(figure.png).decode("ascii")
    kind = ' class="wide"' if figure.wide else ""
    return (
        f"<figure{kind}><h2>{html.escape(figure.title)}</h2>"
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(figure.alt)}">'
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --ink: #1d2329; --soft: #5b6670; --paper: #ffffff; --line: #d9dee3; --track: #eef1f4;
  --source: #717b85; --method: #0072b2; --oracle: #00795c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9fabb6; --paper: #15191d;
  --line: #353d45; --track: #262d34; --source: #8b959f; --method: #56a9e0; --oracle: #35b58f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 60rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.subtitle { color: var(--soft); margin: .2rem 0 1.2rem; }
.headline { font-size: 1.1rem; max-width: 46rem; }
.bars { display: block; width: 100%; max-width: 40rem; margin: 1rem 0; font-size: 14px; }
.bars text { fill: currentColor; } .track { fill: var(--track); }
.bar0 { fill: var(--source); } .bar1 { fill: var(--method); } .bar2 { fill: var(--oracle); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; line-height: 1.25; }
th { text-align: left; font-weight: 500; } td { overflow-wrap: anywhere; }
.numbers td, .numbers thead th + th, .numbers thead td + th { text-align: right; padding: .3rem .6rem; }
.numbers td { white-space: nowrap; overflow-wrap: normal; }
.note, .small { color: var(--soft); font-size: .92rem; max-width: 46rem; }
.note { border-left: 3px solid var(--line); padding-left: .8rem; }
.figures { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.figures > * { min-width: 0; }
figure { margin: 0; break-inside: avoid; } .wide { grid-column: 1 / -1; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; }
pre { background: var(--track); border-radius: 4px; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { @page { margin: 16mm; } body { padding: 0; max-width: none; font-size: 10.5pt; }
  :root { --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --track: #eee;
    --source: #717b85; --method: #0072b2; --oracle: #00795c; }
  .figures { grid-template-columns: 1fr 1fr; } table { font-size: .8rem; }
  .bars rect { print-color-adjust: exact; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="subtitle">$subtitle</p>
$body
</main>
</body>
</html>
""")

_BODY = Template("""<p class="headline">$headline</p>
$bars
<div class="scroll">$accuracies</div>
<p class="small">Held-out images were never shown to the method. The last column is transductive: it is
measured on the very images that were adapted to. The interval covers the choice of images, not that of the
seed.</p>
$notes
<p class="small"><strong>Which network is reported:</strong> $selection
<br><strong>What labels were used for:</strong> $labels</p>
<div class="figures">$first_figure<section><h2>Held-out accuracy per class</h2>
<div class="scroll">$recalls</div></section>$other_figures</div>
<h2>Settings</h2>
<div class="scroll">$settings</div>
<p class="small">Training and evaluation took $seconds seconds.</p>
<h2>Run it again</h2>
<pre>$rerun</pre>""")
