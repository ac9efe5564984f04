"""The panel of paired alignment, driven without a browser; what it does to pairs, as plain values."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from panel_tools import end_all, pixels
from PIL import Image
from worlds import patterned, trained_source

from socketlab import features, losses
from socketlab.errors import LabError
from socketlab.measures import similarity
from socketlab.method.adaptation import Epoch, adapt
from socketlab.panels import pairs as panel_of_pairs
from socketlab.panels.pairs import PairsChoice, PairsPanel, PairsWorld, experiments

QUICK = PairsChoice(pairs=24, epochs=1)


def world() -> PairsWorld:
    images = patterned(64, 1).only("depth"), patterned(15, 3).only("depth")
    return PairsWorld(
        trained_source(), *images, *(patterned(n, seed) for n, seed in ((32, 5), (32, 6), (12, 7)))
    )


@pytest.fixture
def make() -> Iterator[Callable[..., PairsPanel]]:
    """Makes panels on a tiny world; at the end none may be left with an error that nobody expected."""
    made: list[PairsPanel] = []

    def panel(choice: PairsChoice = QUICK, load: Callable[[], PairsWorld] = world) -> PairsPanel:
        made.append(PairsPanel(choice, load, most=32))
        made[-1].wait(60)
        return made[-1]

    yield panel
    end_all(made)


# plain values


@given(st.integers(2, 64), st.floats(0, 1))
def test_wrong_partners_are_as_many_as_asked_for(count: int, share: float) -> None:
    rows = panel_of_pairs.wrong_rows(count, share)
    assert sorted(rows.tolist()) == list(range(count))  # every half is used once
    wrong = int((rows != torch.arange(count)).sum())
    broken = round(share * count)
    assert wrong == (broken if broken > 1 else 0)


@given(st.integers(2, 32), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_pairs_are_mixed_as_asked_for(count: int, near: float) -> None:
    there = world()
    found = there.mixed(count, near)
    assert len(found) == count == len(set(found.names))
    assert sum(name in there.near.names for name in found.names) == round(near * count)


def test_fewer_pairs_are_among_the_more() -> None:
    few, many = (world().mixed(n, 1.0).names for n in (8, 20))
    assert few == many[:8]


def test_spoilt_pairs_keep_their_source_halves() -> None:
    pairs = patterned(10, 5)
    found = panel_of_pairs.spoilt(pairs, "depth", broken=0.5, shift=3)
    assert torch.equal(found.images["rgb"], pairs.images["rgb"])
    before, after = (x.images["depth"].to(torch.int32) for x in (pairs, found))
    assert torch.equal(after[7], before[7].roll(3, dims=2))  # to the right, round the edge
    assert torch.equal(after[0], before[4].roll(3, dims=2))
    assert found.images["depth"].dtype is torch.uint16
    same = panel_of_pairs.spoilt(pairs, "depth", 0.0, 0)
    assert torch.equal(same.images["depth"].to(torch.int32), before)


def test_more_pairs_than_there_are() -> None:
    with pytest.raises(LabError, match="there are 32"):
        world().mixed(33, 1.0)


def test_the_evaluation_measures_what_it_promises() -> None:
    there = world()
    given = there.near
    start = next(iter(adapt(there.source, there.target, None, _nothing())))
    assert isinstance(start, Epoch)
    student = start.state.adapted
    found = there.evaluate(student, given)
    halves = [
        features.predict(s, there.aside.only(m))[1] for s, m in ((there.source, "rgb"), (student, "depth"))
    ]
    assert found["aside"] == pytest.approx(float(losses.paired_alignment(*halves)))
    assert found["rank"] == pytest.approx(similarity.pair_alignment(*halves).median_rank[0])
    assert found["accuracy"] == features.accuracy(student, there.held_out)


def _nothing() -> object:
    from socketlab.method.recipe import Recipe

    return Recipe.for_method("adabn")


# the panel


def test_sliders_change_the_pairs_shown(make: Callable[..., PairsPanel]) -> None:
    panel = make()
    shown = panel.pictures["pairs"]
    assert "24 pairs are given, 5 are shown, 0 with a wrong partner" in shown.alt
    for name in ("pairs", "near", "broken", "shift"):
        control = panel.controls[name]
        ends = []
        for end in (control.min, control.max):
            control.value = end
            panel.wait(60)
            ends.append(pixels(shown))
        assert (ends[0] != ends[1]).any(), name
        control.value = getattr(QUICK, name)
    panel.controls["broken"].value = 1.0
    panel.wait(60)
    assert "5 with a wrong partner" in shown.alt


@pytest.mark.parametrize("where", ["min", "max"])
@pytest.mark.parametrize("name", ["pairs", "near", "broken", "shift", "seed"])
def test_runs_at_the_ends_of_their_sliders(make: Callable[..., PairsPanel], name: str, where: str) -> None:
    panel = make()
    panel.controls[name].value = getattr(panel.controls[name], where)
    assert panel.run(wait=True, timeout=120) == "finished"
    (run,) = panel.runs
    assert run.choice == panel.choice
    assert run.epochs == [0, 1]
    assert np.isfinite([run.values[name] for name in ("given", "aside", "rank", "accuracy")]).all()


def test_the_longest_run_stops(make: Callable[..., PairsPanel]) -> None:
    panel = make()
    panel.controls["epochs"].value = panel.controls["epochs"].max
    heard: list[int] = []
    panel.listeners.append(lambda: heard.append(1))
    panel.buttons["run"].click()
    end = time.monotonic() + 60
    while not (panel.runs and panel.runs[0].epochs) and time.monotonic() < end:
        time.sleep(0.01)
    panel.buttons["stop"].click()
    assert panel.session.wait(20) == "stopped"
    assert heard == []
    assert "stopped" in panel.table.value
    panel.buttons["reset"].click()
    assert (panel.runs, panel.choice, panel.table.value) == ([], QUICK, "")


def test_a_run_gives_the_numbers_of_the_plain_loop(make: Callable[..., PairsPanel]) -> None:
    panel = make()
    panel.run(wait=True, timeout=120)
    pairs = world().given(QUICK)
    events = adapt(trained_source(), world().target, pairs, QUICK.recipe, seed=0)
    plain = [features.accuracy(e.state.adapted, world().held_out) for e in events if isinstance(e, Epoch)]
    assert panel.runs[0].values["accuracy"] == pytest.approx(plain)
    panel.controls["broken"].value = 1.0
    panel.run(wait=True, timeout=120)
    assert "run 1" in panel.pictures["rank"].alt and "run 2" in panel.pictures["rank"].alt  # overlaid
    assert "pairs" in panel.pictures["losses"].alt or "given" in panel.pictures["losses"].alt
    assert panel.table.value.count("<tr") == 3
    assert "partner" in panel.headline.value


def test_errors_are_seen(make: Callable[..., PairsPanel], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> PairsWorld:
        raise LabError("data/pocketrooms/ti_near.rgb.jpg is missing.")

    panel = make(load=missing)
    assert "is missing" in panel.box.value
    with pytest.raises(LabError, match="missing"):
        panel.run(wait=True, timeout=60)
    panel._load = world
    assert panel.run(wait=True, timeout=120) == "finished"
    assert panel.box.value == ""
    monkeypatch.setattr(PairsWorld, "mixed", lambda *a: missing())
    panel.controls["shift"].value = 3
    panel.wait(60)
    assert "is missing" in panel.box.value
    panel.box.clear()


def test_a_still_runs_once(make: Callable[..., PairsPanel]) -> None:
    panel = make()
    plain = panel.still()
    assert len(panel.runs) == 1  # nothing had run: the settings shown did
    assert Image.open(io.BytesIO(plain.data)).width >= 1180
    assert "24 pairs are given" in plain.alt and "run 1" in plain.alt


def test_experiments_differ_in_one_thing_each() -> None:
    first = PairsChoice()
    found = experiments(first, 16)
    changes = [{k: v for k, v in asdict(one).items() if v != getattr(first, k)} for one in found.values()]
    assert changes == [
        {}, {"pairs": 200}, {"pairs": 16}, {"near": 0.0}, {"broken": 0.5}, {"broken": 1.0}, {"shift": 32},
    ]  # fmt: skip
    assert "16 pairs" not in experiments(replace(QUICK, pairs=16), 16)


def test_controls_can_be_found_in_a_browser(make: Callable[..., PairsPanel]) -> None:
    panel = make()
    for name, widget in {**panel.controls, **panel.buttons}.items():
        assert f"socketlab-{name}" in widget._dom_classes
