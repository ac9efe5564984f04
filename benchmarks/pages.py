"""The tables as README and docs/results.md show them: ``python benchmarks/pages.py`` puts them in.

A page says where with ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->``; what stands between is made
from ``data/results``, and a test compares the two, so that no number can go stale.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

from scipy import stats
from tables import finished, of_devices, read

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *(REPOSITORY / "docs" / name for name in ("results.md", "real_data.md")))
Line = dict[str, str]

TITLES = {
    "source-only": "source only",
    "batch": "batch statistics",
    "adabn": "AdaBN",
    "tent": "TENT",
    "shot-im": "SHOT-IM",
    "shot": "SHOT",
    "aad": "AaD",
    "socket": "SOCKET",
    "decision": "DECISION",
    "paper": "SOCKET as published",
    "oracle": "oracle (trained with target labels)",
}
MIXES = ("near", "far")
RULES = {
    "information": "information maximisation",
    "neighbourhood_density": "soft neighbourhood density",
    "agreement": "agreement with the epoch before",
    "bn_closeness": "closeness of BN statistics",
    "class_clusters": "class clusters",
    "certainty": "mean entropy",
    "nuclear_norm": "nuclear norm",
    "matrix_norm": "matrix norm (MaNo)",
}


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    first, *rest = ("| " + " | ".join(line) + " |" for line in [head, *rows])
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def measured(line: Line, name: str = "held_out") -> str:
    """Mean ± deviation, where there is more than one run; and how many diverged."""
    value, spread = float(line[name]), line[f"{name}_std"]
    lost = re.search(r"\d+ diverged", line["chosen_by"])
    return (f"{value:.1f} ± {float(spread):.1f}" if spread else f"{value:.1f}") + (
        f" ({lost[0]})" if lost else ""
    )


def compared(line: Line) -> str:
    """The mean difference to the row's own control, with its 95 % interval."""
    if not line["difference"]:
        return ""
    return f"{float(line['difference']):+.1f} [{float(line['low']):+.1f}, {float(line['high']):+.1f}]"


def titled(line: Line) -> str:
    """Method and pairs in words."""
    name = TITLES.get(line["method"], line["method"].replace("socket", "SOCKET"))
    return f"{name}, {line['pairs']} pairs" if line["pairs"] else name


def over_sensors(lines: list[Line]) -> list[Line]:
    """The lines over all sensors."""
    return [line for line in lines if line["sensor"] == "all"]


def closed(line: Line, lines: list[Line]) -> float:
    """Share of the way from source only to the oracle, in per cent."""
    level = {line["method"]: float(line["held_out"]) for line in over_sensors(lines)}
    return 100 * (float(line["held_out"]) - level["source-only"]) / (level["oracle"] - level["source-only"])


def headline(folder: Path) -> str:
    """README's table: a few methods, over all sensors."""
    lines = read(folder / "methods.csv")
    order = [
        ("source-only", ""),
        ("adabn", ""),
        ("shot", ""),
        ("socket", "far"),
        ("socket", "near"),
        ("oracle", ""),
    ]
    found = {(line["method"], line["pairs"]): line for line in over_sensors(lines)}
    rows = [[titled(found[k]), measured(found[k]), f"{closed(found[k], lines):.0f} %"] for k in order]
    return grid(["method", "held-out accuracy, %", "way from source only to the oracle"], rows)


def methods(folder: Path) -> str:
    """All methods of one source network, over all sensors, with every measure."""
    lines = read(folder / "methods.csv")
    more = read(folder / "ablations.csv") if (folder / "ablations.csv").exists() else []
    rows = [
        [titled(line), line["runs"]]
        + [measured(line, name) for name in ("held_out", "transductive", "class_mean")]
        + [f"{closed(line, lines):.0f} %", line["chosen_by"]]
        for line in over_sensors(lines + more)
    ]
    head = ["method", "runs", "held out, %", "adapted to, %", "class mean, %", "gap closed", "chosen by"]
    return grid(head, rows)


def by_sensor(folder: Path) -> str:
    """Held-out accuracy on each sensor by itself."""
    lines = read(folder / "methods.csv")
    sensors = list(dict.fromkeys(line["sensor"] for line in lines if line["sensor"] != "all"))
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        rows.setdefault(titled(line), {})[line["sensor"]] = measured(line)
    return grid(
        ["method", *(s.replace("_", " ") for s in sensors)],
        [[n, *(r[s] for s in sensors)] for n, r in rows.items()],
    )


def rates(folder: Path) -> str:
    """The methods without pairs, at two learning rates."""
    lines = read(folder / "rates.csv")
    level = {(line["method"], line["rate"]): measured(line) for line in lines}
    columns = list(dict.fromkeys(line["rate"] for line in lines))
    rows = [
        [TITLES[m], *(level[m, rate] for rate in columns)] for m in dict.fromkeys(x["method"] for x in lines)
    ]
    return grid(["method", *(f"rate {rate}" for rate in columns)], rows)


def bn(folder: Path) -> str:
    """What L_BN is worth: every setting without it, and the difference that it makes."""
    lines = read(folder / "bn.csv")
    plain = {line["setting"]: line for line in lines if float(line["lambda_bn"]) == 0}
    rows = []
    for line in lines:
        if float(line["lambda_bn"]) > 0:
            memory = f", memory {line['memory']}" if float(line["memory"]) else ""
            rows.append([line["setting"], measured(plain[line["setting"]]), line["lambda_bn"],
                         line["layers"] + memory, measured(line), compared(line)])  # fmt: skip
    head = ["setting", "without L_BN, %", "λ_d", "layers", "with L_BN, %", "difference [95 % interval]"]
    return grid(head, rows)


def paper(folder: Path) -> str:
    """The published recipe and one change at a time."""
    rows = [
        [line["recipe"], line["runs"], measured(line), compared(line)] for line in read(folder / "paper.csv")
    ]
    return grid(["recipe", "runs", "held out, %", "difference [95 % interval]"], rows)


def forms(folder: Path) -> str:
    """The quicker form of a run against the slower one."""
    rows = [
        [line["form"], line["runs"], measured(line), compared(line)] for line in read(folder / "forms.csv")
    ]
    return grid(["form", "runs", "held out, %", "difference [95 % interval]"], rows)


def transfers(folder: Path) -> str:
    """From each sensor's RGB network to each sensor's depth."""
    lines = read(folder / "transfers.csv")
    level = {(line["source"], line["sensor"], line["method"]): line for line in lines}
    sensors = list(dict.fromkeys(line["source"] for line in lines))
    rows = [
        [
            f"{source.replace('_', ' ')}, {TITLES[method]}",
            *(measured(level[source, target, method]) for target in sensors),
        ]
        for source in sensors
        for method in ("source-only", "adabn", "socket")
    ]
    return grid(["RGB network of", *(f"depth of {s.replace('_', ' ')}" for s in sensors)], rows)


def sources(folder: Path) -> str:
    """All four RGB networks together, on each camera's depth."""
    single = "*to compare:* SOCKET with the best single network, picked by labels"
    return _of_four(read(folder / "sources.csv"), {single: _best_single(folder)})


def sources_nir(folder: Path) -> str:
    """The same in near infrared."""
    return _of_four(read(folder / "sources_nir.csv"), {})


def _of_four(lines: list[Line], more: dict[str, dict[str, str]]) -> str:
    """Four networks on each camera, rows to compare with, and what the beginning of the shares is worth."""
    sensors = [*sorted({line["sensor"] for line in lines} - {"all"}), "all"]
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        name = TITLES.get(line["method"], line["method"].replace("socket", "SOCKET"))
        rows.setdefault(name, {})[line["sensor"]] = measured(line)
    rows |= more
    gains = [line for line in lines if line["method"] == "socket"]
    rows["SOCKET against shares that begin even"] = {x["sensor"]: compared(x) for x in gains}
    head = ["four networks", *(s.replace("_", " ") for s in sensors)]
    return grid(head, [[name, *(row[s] for s in sensors)] for name, row in rows.items()])


def _best_single(folder: Path) -> dict[str, str]:
    """Sensor → accuracy of whichever single network is the best on it, which only labels can tell."""
    lines = [x for x in read(folder / "transfers.csv") if x["method"] == "socket" and x["sensor"] != "all"]
    best: dict[str, Line] = {}
    for line in sorted(lines, key=lambda line: float(line["held_out"])):
        best[line["sensor"]] = line
    found = {sensor: measured(line) for sensor, line in best.items()}
    return found | {"all": f"{mean(float(line['held_out']) for line in best.values()):.1f}"}


def cameras(folder: Path) -> str:
    """How each RGB network reads each camera's colour pictures."""
    lines = read(folder / "cameras.csv")
    level = {
        (x["source"], x["sensor"]): f"{float(x['held_out']):.1f} ({x['information_of_pairs']})" for x in lines
    }
    sensors = list(dict.fromkeys(line["sensor"] for line in lines))
    rows = [[one.replace("_", " "), *(level[one, sensor] for sensor in sensors)] for one in sensors]
    return grid(["RGB network of", *(f"colours of {s.replace('_', ' ')}" for s in sensors)], rows)


def nir(folder: Path) -> str:
    """Near-infrared, both ways."""
    rows = [
        [line["way"], titled(line), line["runs"], measured(line), compared(line)]
        for line in read(folder / "nir.csv")
    ]
    return grid(["from → to", "method", "runs", "held out, %", "against the default recipe"], rows)


def pairs(folder: Path) -> str:
    """What the pairs and the sensor decide."""
    rows = [
        [
            line["varied"],
            TITLES.get(line["pairs"], line["pairs"]),
            line["value"],
            line["runs"],
            measured(line),
        ]
        for line in read(folder / "pairs.csv")
    ]
    return grid(["varied", "pairs or method", "value", "runs", "held out, %"], rows)


def trust(folder: Path) -> str:
    """Which measures of the gap go with accuracy."""
    rows = [
        [
            line["title"],
            f"{line['all']} [{line['low']}, {line['high']}]",
            line["within_method"],
            line["within_sensor"],
        ]
        for line in read(folder / "trust.csv")
    ]
    head = ["measure", "all networks [95 % interval]", "within a method", "within a sensor"]
    return grid(head, rows)


def selection(folder: Path) -> str:
    """Which epoch each rule takes."""
    rows = [
        [
            TITLES[line["method"]],
            RULES.get(line["chosen_by"], line["chosen_by"]),
            line["epoch"],
            measured(line),
            compared(line),
        ]
        for line in read(folder / "selection.csv")
    ]
    return grid(["method", "epoch chosen by", "mean epoch", "held out, %", "against the last epoch"], rows)


def encodings(folder: Path) -> str:
    """How depth is read: each encoding against metric depth."""
    lines = read(folder / "encodings.csv")
    still = {line["encoding"]: line for line in lines if line["method"] == "adabn"}
    rows = [
        [f"`{line['encoding']}`", measured(still[line["encoding"]]), line["runs"], measured(line),
         compared(line), line["milliseconds"]]
        for line in lines
        if line["method"] == "socket"
    ]  # fmt: skip
    head = ["depth read as", "AdaBN, %", "runs", "SOCKET, %", "against metric [95 % interval]",
            "milliseconds for 32 views"]  # fmt: skip
    return grid(head, rows)


def lengths(folder: Path) -> str:
    """Recipes of several lengths: over all sensors, and on the sensor on which they are worst."""
    lines = read(folder / "lengths.csv")
    columns = {
        "all near pairs": ("near", "500", "all"),
        "all far pairs": ("far", "500", "all"),
        "25 near pairs": ("near", "25", "all"),
        "RealSense, near pairs": ("near", "500", "realsense"),
    }
    found = {(x["recipe"], (x["pairs"], x["count"], x["sensor"])): x for x in lines}

    def cell(recipe: str, where: tuple[str, str, str]) -> str:
        return with_difference(found[recipe, where]) if (recipe, where) in found else ""

    rows = [
        [recipe, *(cell(recipe, where) for where in columns.values())]
        for recipe in dict.fromkeys(line["recipe"] for line in lines)
    ]
    return grid(["recipe", *columns], rows)


def with_difference(line: Line) -> str:
    """The figure and, where there is a control, the difference to it."""
    return f"{measured(line)}, {compared(line)}" if line["difference"] else measured(line)


def rivals(folder: Path) -> str:
    """What else can be done with the same pairs."""
    found = {(x["method"], x["pairs"]): x for x in over_sensors(read(folder / "rivals.csv"))}
    words = {"socket": "SOCKET: features and maps", "features alone": "SOCKET: features alone"}
    rows = [
        [
            words.get(method, method),
            found[method, "near"]["runs"],
            *(part(found[method, mix]) for mix in MIXES for part in (measured, compared)),
        ]
        for method in dict.fromkeys(method for method, _ in found)
    ]
    head = [f"{mix} pairs{more}" for mix in MIXES for more in (", %", ", against SOCKET")]
    return grid(["on the pairs", "runs", *head], rows)


def labels(folder: Path) -> str:
    """What some labelled depth images of each class are worth."""
    lines = sorted(over_sensors(read(folder / "labels.csv")), key=lambda line: int(line["labels"]))
    return crossed(lines, "labels", "start", "labelled images a class")


def untidy(folder: Path) -> str:
    """Targets with uneven classes, a class missing, strangers."""
    return crossed(over_sensors(read(folder / "untidy.csv")), "target", "method", "target")


def signs(folder: Path) -> str:
    """What the predictions for an untidy target show without labels, by SOCKET with near pairs and AdaBN."""
    runs = {origin: line for (origin, _), line in finished(folder / "runs.csv").items()}
    found: dict[tuple[str, str], list[Line]] = {}
    for line in read(folder / "untidy_runs.csv"):
        found.setdefault((line["target"], line["method"]), []).append(runs[line["origin"]])

    def cell(target: str, method: str, name: str) -> str:
        values = [float(line[name]) for line in found.get((target, method), ()) if line[name]]
        return f"{mean(values):.2f} ± {stdev(values):.2f}" if values else ""

    columns = {
        "the classes themselves": ("socket", "true_unevenness"),
        "predicted by SOCKET": ("socket", "unevenness"),
        "by SOCKET without IM": ("socket without IM", "unevenness"),
        "by AdaBN": ("adabn", "unevenness"),
        "uncertainty of SOCKET": ("socket", "uncertainty"),
        "strangers less certain": ("socket", "stranger_auroc"),
    }
    targets = dict.fromkeys(target for target, _ in found)
    return grid(
        ["target", *columns], [[t, *(cell(t, *which) for which in columns.values())] for t in targets]
    )


def streams(folder: Path) -> str:
    """Every method of test-time adaptation on every stream."""
    lines = read(folder / "streams.csv")
    found = {(x["network"], x["stream"], x["batch"], x["method"]): x for x in lines}
    methods = list(dict.fromkeys(line["method"] for line in lines))
    rows = []
    for network, stream, batch in dict.fromkeys(key[:3] for key in found):
        mine = (found[network, stream, batch, method] for method in methods)
        rows.append([network, stream, batch, *(_gained(line) for line in mine)])
    return grid(["network", "stream", "images at a time", *methods], rows)


def _gained(line: Line) -> str:
    """Accuracy in a stream and, but for the stored statistics themselves, the difference to these."""
    if line["method"] == "source":
        return f"{line['held_out']} ± {line['held_out_std']}"
    gain, runs = float(line["gain"]), int(line["runs"])
    reach = float(line["gain_std"]) / runs**0.5 * float(stats.t.ppf(0.975, runs - 1))
    return f"{line['held_out']}, {gain:+.1f} [{gain - reach:+.1f}, {gain + reach:+.1f}]"


def crossed(lines: list[Line], down: str, across: str, head: str) -> str:
    """A row for each value of one column, a column for each of another."""
    found = {(line[down], line[across]): with_difference(line) for line in lines}
    rows, columns = (list(dict.fromkeys(line[name] for line in lines)) for name in (down, across))
    titles = [TITLES.get(name, name.replace("socket", "SOCKET")) for name in columns]
    return grid(
        [head, *titles], [[row, *(found.get((row, column), "") for column in columns)] for row in rows]
    )


def distilled(folder: Path) -> str:
    """One network out of several."""
    rows = [
        [line["network"], line["runs"], measured(line), compared(line)]
        for line in over_sensors(read(folder / "distilled.csv"))
    ]
    return grid(["network", "runs", "held out, %", "against the four"], rows)


def choice(folder: Path) -> str:
    """The depth encoding that pairs choose, and what it loses against the best fixed one."""
    lines = read(folder / "choice.csv")
    names = [name for name in lines[0] if name in ("metric", "inverse", "relative", "normals")]
    rows = []
    for sensor in dict.fromkeys(line["sensor"] for line in lines):
        mine = [line for line in lines if line["sensor"] == sensor]
        level = [f"{float(mine[0][name]):.1f}" for name in names]
        chosen = ", ".join(line["chosen"] for line in mine)
        rows.append([sensor, *level, chosen, f"{mean(float(line['loss']) for line in mine):.1f}"])
    return grid(["camera", *(f"{name}, %" for name in names), "chosen", "points lost"], rows)


def pretrained(folder: Path) -> str:
    """EfficientNet-Lite0 by every method, on each set."""
    lines = [x for x in read(folder / "pretrained.csv") if x["lambda_bn"] == "0.0" and x["held_out"]]
    return runs_across(
        [x for x in lines if x["statistics"] == "batches"],
        lambda x: TITLES[x["method"]] + (f", {x['rates']}" if x["rates"] else ""),
        lambda x: x["set"],
        "method",
    )


def pretrained_bn(folder: Path) -> str:
    """What L_BN is worth to SOCKET with EfficientNet-Lite0, whichever statistics normalise a batch."""
    return runs_across(
        [
            x
            for x in read(folder / "pretrained.csv")
            if x["method"] == "socket" and x["rates"] == "published rates"
        ],
        lambda x: (
            f"{x['set']}, batches normalised by "
            + ("themselves" if x["statistics"] == "batches" else "the source's statistics")
        ),
        lambda x: f"λ_d = {float(x['lambda_bn']):g}",
        "set",
    )


def runs_across(
    lines: list[Line], row: Callable[[Line], str], column: Callable[[Line], str], head: str
) -> str:
    """Accuracy, mean ± deviation over the runs, by what two functions say of a run."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        found = values.setdefault(row(line), {}).setdefault(column(line), [])
        found += [] if line["held_out"] == "diverged" else [100 * float(line["held_out"])]
    columns = list(dict.fromkeys(name for found in values.values() for name in found))

    def cell(found: list[float]) -> str:
        spread = f" ± {stdev(found):.1f}" if len(found) > 1 else ""
        return f"{mean(found):.1f}{spread}" if found else "diverged"

    rows = [
        [title, *(cell(cells[name]) if name in cells else "" for name in columns)]
        for title, cells in values.items()
    ]
    return grid([head, *columns], rows)


PARTS: dict[str, Callable[[Path], str]] = {
    "headline": headline, "methods": methods, "rates": rates, "sensors": by_sensor, "bn": bn, "paper": paper,
    "forms": forms, "transfers": transfers, "sources": sources, "sources_nir": sources_nir,
    "cameras": cameras, "nir": nir, "pairs": pairs, "selection": selection, "trust": trust,
    "encodings": encodings, "lengths": lengths, "rivals": rivals, "labels": labels, "untidy": untidy,
    "signs": signs, "streams": streams,
    "distilled": distilled, "choice": choice, "pretrained": pretrained,
    "pretrained_bn": pretrained_bn,
}  # fmt: skip
COMMANDS = {
    "trust": "make trust",
    "encodings": "python benchmarks/depth_encodings.py",
    "choice": "python benchmarks/encoding_choice.py",
    "streams": "python benchmarks/streams.py",
    "pretrained": "python benchmarks/pretrained.py",
    "pretrained_bn": "python benchmarks/pretrained.py",
}
"""By what a table is made, if not by ``make results``."""
BESIDE = {"methods": ("ablations",)}
"""Tables that show lines of others too."""
MARK = re.compile(r"<!-- results:(\w+) -->\n(.*?)<!-- /results:\1 -->", re.DOTALL)


def made_on(folder: Path, table: str) -> str:
    """In a sentence, the releases and devices that a table's runs were made with; "" where there are none."""
    files = [folder / f"{name}_runs.csv" for name in (table, *BESIDE.get(table, ()))]
    if not files[0].exists():
        return ""
    done = finished(folder / "runs.csv") | finished(folder / "encodings_runs.csv")
    lines = [line for file in files if file.exists() for line in read(file)]
    origins = {line["origin"] for line in lines} & {one for one, _ in done}
    counts = Counter(line["environment"] for line in (of_devices(origins, done) or {}).values())
    order = sorted(counts.items(), key=lambda count: (-count[1], count[0]))
    return "\n\n*Runs: " + "; ".join(f"{n} by {words}" for words, n in order) + ".*"


def filled(text: str, folder: Path) -> str:
    """The page with every table made anew; one whose runs are not all there says so."""

    def put(found: re.Match[str]) -> str:
        name = found.group(1)
        try:
            table = PARTS[name](folder) + made_on(folder, name)
        except FileNotFoundError as missing:
            command = COMMANDS.get(name, "make results")
            table = f"*Not measured yet: {Path(missing.filename).name} is made by `{command}`.*"
        return f"<!-- results:{name} -->\n{table}\n<!-- /results:{name} -->"

    return MARK.sub(put, text)


def fill(folder: Path) -> None:
    """Put the tables into all pages."""
    from socketlab.files import write_whole

    for page in PAGES:
        if page.exists():
            write_whole(page, filled(page.read_text(encoding="utf-8"), folder).encode())


if __name__ == "__main__":
    from socketlab.files import data_folder

    fill(data_folder() / "results")
