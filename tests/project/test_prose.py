"""What the notebooks say in words about measured tables is what the tables say.

Each claim below is quoted from a notebook: where the sentence goes, its line here has to go too; where a
table changes, the sentence has to be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from socketlab.figures.report import gap_closed
from socketlab.files import verified
from tools import run_notebooks

PATHS = sorted(run_notebooks.FOLDER.glob("*.ipynb"))
METHODS = ("source-only", "adabn", "shot", "socket far", "socket near", "oracle")


def words(name: str) -> str:
    """The text of a notebook, with single spaces."""
    (path,) = run_notebooks.FOLDER.glob(f"{name}_*.ipynb")
    cells = [cell.source for cell in run_notebooks.read(path).cells if cell.cell_type == "markdown"]
    return " ".join("\n".join(cells).split())


def bn() -> pd.DataFrame:
    """The table of notebook 02: with and without matching."""
    table = pd.read_csv(verified("results/bn.csv"))
    return table[table.memory == 0]


def without_matching(setting: str) -> float:
    table = bn()
    (found,) = table[(table.setting == setting) & (table.lambda_bn == 0)].held_out
    return float(found)


def differences(chosen: Callable[[Any], Any]) -> Any:
    table = bn()
    return table[(table.lambda_bn > 0) & chosen(table.setting.str)].difference


def means(table: str, by: str) -> dict[str, dict[str, float]]:
    """sensor or way → run → mean accuracy on held-out images."""
    runs = pd.read_csv(verified(f"results/{table}_runs.csv"), keep_default_na=False)
    runs["run"] = (runs.method + " " + runs.pairs).str.strip()
    found = runs.pivot_table(index="run", columns=by, values="held_out").loc[list(METHODS)]
    return {str(column): found[column].to_dict() for column in found}


def streams() -> pd.DataFrame:
    """Accuracy in per cent: network, stream and images at a time × method."""
    table = pd.read_csv(verified("results/streams.csv"))
    return table.pivot_table(index=["network", "stream", "batch"], columns="method", values="held_out")


def colour(stream: str, batch: int) -> Any:
    """The methods on a stream of near-infrared, less what the stored statistics reach."""
    found = streams().loc["RGB network, near-infrared", stream, batch]
    return found - found["source"]


def adapted(stream: str, batch: int) -> Any:
    """The methods on a stream of depth, less what the adapted network's stored statistics reach."""
    found = streams().loc["SOCKET's network, depth", stream, batch]
    return found - found["source"]


def adabn_brings(table: str, by: str, column: str) -> float:
    found = means(table, by)[column]
    return found["adabn"] - found["source-only"]


def adabn_closes_of_depth() -> float:
    """Share of the way from source only to the oracle that AdaBN goes on the Kinect v1's depth."""
    found = means("methods", "sensor")["kinect_v1"]
    return adabn_brings("methods", "sensor", "kinect_v1") / (found["oracle"] - found["source-only"])


def nir(way: str) -> dict[str, float]:
    return means("nir", "way")[way]


def trust() -> pd.DataFrame:
    return pd.read_csv(verified("results/trust.csv"))


def closed(run: str, way: str) -> float:
    """Share of the way from source only to the oracle."""
    found = gap_closed(nir(way)["source-only"], nir(way)[run], nir(way)["oracle"])
    assert found is not None
    return found


def reached(run: str) -> float:
    """Share of what pairs bring above AdaBN, of notebook 03's camera."""
    adabn = 100 * means("methods", "sensor")["kinect_v1"]["adabn"]
    return (without_matching(run) - adabn) / (without_matching("all near pairs") - adabn)


def pairs_lead() -> bool:
    """The measures on pairs that lead the list go with accuracy at one method too; no other measure does."""
    table = trust().sort_values("all")
    on_pairs = table.title.str.contains("partner|CKA")
    leading = table.within_method[on_pairs & (table["all"] < table["all"][~on_pairs].min())]
    return len(leading) >= 4 and leading.max() < -0.4 and table.within_method[~on_pairs].min() > -0.2


def gained(method: str = "socket") -> dict[str, float]:
    """Sensor → points that four sources gain on the network of its own camera, near pairs."""
    four, own = (pd.read_csv(verified(f"results/{name}.csv")) for name in ("sources", "methods"))
    four, own = four[four.method == method], own[(own.method == "socket") & (own.pairs == "near")]
    found = four.set_index("sensor").held_out - own.set_index("sensor").held_out
    return {str(sensor): float(points) for sensor, points in found.items()}


def labels_worth() -> bool:
    """SOCKET's lines cross the curve of fine-tuning a little below twenty labels of each class, and ten."""
    labels, lengths = (pd.read_csv(verified(f"results/{name}.csv")) for name in ("labels", "lengths"))
    found = labels[labels.sensor == "all"].set_index(["start", "labels"])
    usual = lengths[(lengths.sensor == "all") & (lengths.recipe == "10 + 5 epochs")]
    level = usual.set_index(["pairs", "count"]).held_out
    tuned, after = found.held_out["fine-tuned"], found.loc["socket, then labels"]
    near, others = level["near", 500], [level["far", 500], level["near", 25]]
    twenty = abs(near - tuned[20]) < 1.5
    ten = all(tuned[5] + 5 < other < tuned[10] and tuned[10] - other < 3 for other in others)
    return twenty and ten and after.high[1] < 0 and after.low[10] > 0 and after.difference[10] < 3


CLAIMS: list[tuple[str, str, Callable[[], Any]]] = [
    (
        "01",
        "Measures on pairs lead, and only they still say something when the method stays the same",
        pairs_lead,
    ),
    ("01", "The last line points the *wrong way*", lambda: trust()["all"].iloc[-1] > 0),
    (
        "02",
        "matching alone is no better than AdaBN",
        lambda: (differences(lambda setting: setting.fullmatch("alone")) <= 0).all(),
    ),
    (
        "02",
        "a mismatch reaches the output, and matching it helps",
        lambda: (
            differences(lambda setting: setting.fullmatch("(alone|shot), source's statistics")) > 0
        ).all(),
    ),
    (
        "02",
        "In the usual setting every difference is a fraction of a point",
        lambda: (differences(lambda s: s.contains("pairs") & ~s.contains("statistics")).abs() < 1).all(),
    ),
    (
        "02",
        "Normalising by the target's own statistics is the better way by far",
        lambda: (
            without_matching("25 near pairs") > 20 + without_matching("25 near pairs, source's statistics")
        ),
    ),
    (
        "03",
        "Twenty-five pairs already bring most of what there is to gain",
        lambda: reached("25 near pairs") > 0.5,
    ),
    (
        "03",
        "a hundred near pairs are worth more than all the far ones",
        lambda: without_matching("100 near pairs") > without_matching("all far pairs"),
    ),
    (
        "04",
        "does what some twenty labelled images of each class do; with far pairs, or with a few near ones, "
        "nearly ten. After it, a single label of each class does harm, and ten help a little",
        labels_worth,
    ),
    (
        "04",
        "Pairs of far rooms bring less than pairs of near ones, and still far more than none",
        lambda: all(
            one["socket near"] > one["socket far"] > 0.2 + one["shot"]
            for one in means("methods", "sensor").values()
        ),
    ),
    (
        "05",
        "With pairs, four are on average a point better than the one from behind the target's own camera",
        lambda: 0.5 < gained()["all"] < 1.5,
    ),
    (
        "05",
        "From an even beginning the Kinect v2 loses",
        lambda: gained("socket, shares begin even")["kinect_v2"] < -2,
    ),
    (
        "05",
        "By own information it begins with four fifths of the say, and what was lost comes back",
        lambda: gained()["kinect_v2"] > -0.5,
    ),
    (
        "05",
        "where the four are alike, little changes",
        lambda: all(
            abs(gained()[sensor] - gained("socket, shares begin even")[sensor]) < 0.5
            for sensor in ("kinect_v1", "realsense", "xtion")
        ),
    ),
    (
        "06",
        "For depth the same step brings as many points, and they are next to nothing of what is missing",
        lambda: (
            abs(adabn_brings("nir", "way", "rgb → nir") - adabn_brings("methods", "sensor", "kinect_v1"))
            < 0.01
            and adabn_closes_of_depth() < 0.1
        ),
    ),
    (
        "06",
        "With single images it costs the adapted network 5 points on the other streams",
        lambda: [round(adapted(stream, 1).follow) for stream in ("steady", "errors grow")] == [-5, -5],
    ),
    ("06", "close about half of what is missing", lambda: 0.4 < closed("adabn", "rgb → nir") < 0.65),
    (
        "06",
        "SHOT and far pairs end a point or two above AdaBN",
        lambda: all(
            0.005 < nir("rgb → nir")[run] - nir("rgb → nir")["adabn"] < 0.02 for run in ("shot", "socket far")
        ),
    ),
    (
        "06",
        "near pairs add as much again as AdaBN brought, and pass the oracle from another camera",
        lambda: (
            nir("rgb → nir")["socket near"] > nir("rgb → nir")["oracle"]
            and abs(
                nir("rgb → nir")["socket near"]
                + nir("rgb → nir")["source-only"]
                - 2 * nir("rgb → nir")["adabn"]
            )
            < 0.005
        ),
    ),
    (
        "06",
        "In the hard one SHOT does worse than AdaBN",
        lambda: nir("nir → rgb")["shot"] < nir("nir → rgb")["adabn"],
    ),
    (
        "06",
        "Far pairs bring next to nothing",
        lambda: abs(nir("nir → rgb")["socket far"] - nir("nir → rgb")["adabn"]) < 0.02,
    ),
    (
        "06",
        "they bring the colour network 5 points on a steady stream and 13 where errors grow",
        lambda: (round(colour("steady", 32).batch), round(colour("errors grow", 32).batch)) == (5, 13),
    ),
    ("06", "*Reset* equals *batch* to the digit", lambda: (streams()["reset"] == streams()["batch"]).all()),
    (
        "06",
        "TENT, which then learns from such answers, falls to near chance",
        lambda: streams()["tent"].xs(1, level="batch").max() < 17,
    ),
    (
        "06",
        "the colour network still gains from them, singly too",
        lambda: all(colour(stream, 1).follow > 1 for stream in ("steady", "errors grow", "camera exchanged")),
    ),
    (
        "06",
        "*match* is never better than *follow* by more than a fraction of a point",
        lambda: (streams()["match"] - streams()["follow"]).max() < 0.5,
    ),
    ("06", "more than half of the way remains", lambda: 0.25 < closed("socket near", "nir → rgb") < 0.5),
]


@pytest.mark.parametrize(("name", "sentence", "holds"), CLAIMS, ids=[sentence for _, sentence, _ in CLAIMS])
def test_what_is_said_of_a_table_is_in_it(name: str, sentence: str, holds: Callable[[], Any]) -> None:
    assert sentence in words(name)
    assert holds()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_measured_number_is_typed_into_the_text(path: Path) -> None:
    """Decimal fractions come from cells; what is left are formulas, code, links and numbers of papers."""
    cells = [cell.source for cell in run_notebooks.read(path).cells if cell.cell_type == "markdown"]
    text = re.sub(r"```.*?```|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|arXiv:\S+", "", "\n".join(cells), flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+", text) == []
