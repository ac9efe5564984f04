"""The panels at the tier replay: what was recorded is shown, nothing is trained."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import patterned, trained_source

from socketlab.errors import LabError
from socketlab.method.adaptation import adapt
from socketlab.panels import pairs, session, statistics
from socketlab.panels.adaptation import AdaptationPanel
from socketlab.panels.pairs import PairsChoice, PairsPanel, PairsWorld
from socketlab.panels.statistics import StatisticsBench, StatisticsChoice, StatisticsPanel
from tools.manifest import write_manifest

DEPTH, HELD_OUT = patterned(64, 1).only("depth"), patterned(15, 3)


def pairs_of(seed: int) -> PairsPanel:
    def world() -> PairsWorld:
        pairs = (patterned(count, kind) for count, kind in ((32, 5), (32, 6), (12, 7)))
        return PairsWorld(trained_source(), DEPTH, HELD_OUT.only("depth"), *pairs)

    panel = PairsPanel(PairsChoice(pairs=24, epochs=1, seed=seed), world, most=32)
    panel.wait(60)
    return panel


def statistics_of(seed: int) -> StatisticsPanel:
    choice = StatisticsChoice(batch_size=8, epochs=1, seed=seed)
    panel = StatisticsPanel(choice, lambda: StatisticsBench(trained_source(), DEPTH, HELD_OUT))
    panel.wait(60)
    return panel


def begun_only(*arguments: Any, **named: Any) -> Iterator[Any]:
    """What stands before the first step, and no step."""
    yield next(iter(adapt(*arguments, **named)))
    pytest.fail("it was trained")


@pytest.mark.parametrize(("make", "module"), [(pairs_of, pairs), (statistics_of, statistics)])
def test_a_recorded_run_is_shown_and_nothing_is_trained(
    make: Callable[[int], Any], module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path))
    monkeypatch.setenv("SOCKETLAB_TIER", "laptop")
    monkeypatch.setenv("SOCKETLAB_RECORD", "1")
    first = make(0)
    assert first.run(wait=True) == "finished"
    write_manifest(tmp_path)
    monkeypatch.setenv("SOCKETLAB_TIER", "replay")
    monkeypatch.setattr(module, "adapt", begun_only)
    second = make(0)
    assert second.run(wait=True) == "finished"
    assert second.runs[0].epochs == first.runs[0].epochs
    for name, steps in first.runs[0].losses.items():
        assert second.runs[0].losses[name] == pytest.approx(steps)
    assert second.runs[0].values.keys() == first.runs[0].values.keys()
    for name, values in first.runs[0].values.items():
        np.testing.assert_allclose(second.runs[0].values[name], values)
    with pytest.raises(LabError, match="no run with these settings was recorded"):
        make(7).run(wait=True)


def test_a_layer_that_is_looked_at_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was recorded before the layers had their names is shown at any layer and batch."""
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path))
    monkeypatch.setenv("SOCKETLAB_RECORD", "1")
    monkeypatch.setenv("SOCKETLAB_TIER", "laptop")
    first = statistics_of(0)
    assert first.run(wait=True) == "finished"
    write_manifest(tmp_path)
    monkeypatch.setenv("SOCKETLAB_TIER", "replay")
    second = statistics_of(0)
    second.set(replace(second.choice, layer=second.bench().layers[-1], batch_size=4))
    assert second.run(wait=True) == "finished"
    assert second.runs[0].losses["BN"] == pytest.approx(first.runs[0].losses["BN"])
    second.controls["epochs"].value = 3
    with pytest.raises(LabError, match="no run with these settings was recorded"):
        second.run(wait=True)


@pytest.fixture(params=[AdaptationPanel, PairsPanel, StatisticsPanel])
def shipped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A tier → the panel with the shipped rooms, without pictures, and the experiments that it offers."""

    def made(tier: str) -> tuple[Any, list[str]]:
        monkeypatch.delenv("SOCKETLAB_DATA", raising=False)
        monkeypatch.setenv("SOCKETLAB_TIER", tier)
        monkeypatch.setattr(session.LiveFigure, "post", lambda *a, **k: None)
        panel = request.param()
        return panel, [title for _, title in panel.controls["experiment"].options if title]

    return made


def test_the_shipped_recordings_have_the_first_settings_and_all_that_is_offered(
    shipped: Callable[[str], Any],
) -> None:
    panel, offered = shipped("replay")
    assert panel.run(wait=True) == "finished"
    assert offered
    for title in offered:
        panel.controls["experiment"].value = title
        assert panel.run(wait=True) == "finished"
    for name, control in panel.controls.items():
        if name != "experiment" and not control.disabled:
            options = getattr(control, "options", None) or [control.min, control.max]
            for value in (options[0], options[-1]):
                control.value = value[-1] if isinstance(value, tuple) else value
                assert panel.wait(60) == "finished"
    assert panel.run(wait=True) == "finished"
    assert {run.outcome for run in panel.runs} == {"recorded"}
    assert panel.box.errors == []


@pytest.mark.slow
def test_at_laptop_the_first_settings_and_all_that_is_offered_begin(shipped: Callable[[str], Any]) -> None:
    """On the shipped rooms: every experiment of the menu trains, and is stopped after its first steps."""
    panel, offered = shipped("laptop")
    for count, title in enumerate(["", *offered], start=1):
        if title:
            panel.controls["experiment"].value = title
        panel.run()
        while panel.session.running and not (len(panel.runs) == count and panel.runs[-1].steps):
            panel.session.join(0.05)
        panel.stop()
        assert panel.wait(60) in ("stopped", "finished")
        assert panel.runs[-1].steps or panel.runs[-1].outcome == "finished"  # source only, AdaBN
    assert len(offered) > 1 and len(panel.runs) == 1 + len(offered)
    assert panel.box.errors == []
