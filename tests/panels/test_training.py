"""What panels that train share: controls, runs side by side, recorded runs, and a guess first."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider

from socketlab.errors import LabError
from socketlab.method.adaptation import Epoch, Step
from socketlab.method.recipe import Recipe, knobs
from socketlab.panels import training
from socketlab.panels.base import recipe_slider, titled, written
from socketlab.panels.training import Guess, PanelRun, RunPanel
from socketlab.runs import replay
from tools.manifest import write_manifest

OPTIONS = ("it rises", "it stays", "it falls < 50 %")


@dataclass(frozen=True)
class Setting:
    """What the small panel of these tests can be told."""

    rate: float = 1.0
    count: int = 3


class SmallPanel(RunPanel[Setting]):
    """Counts steps; its accuracy is its rate."""

    view = ("colour",)
    folded: ClassVar = {"More": ["count"]}
    steps = 4

    def __init__(self, first: Setting | None = None) -> None:
        experiments = {"plain": Setting(), "fast": Setting(2.0), "long": Setting(1.0, 9)}
        table = {
            "rate": FloatSlider(description="rate", max=2.0, step=0.5),
            "count": IntSlider(description="count", min=1, max=9),
            "colour": Dropdown(description="colour", options=("red", "blue")),
        }
        super().__init__(first or Setting(), experiments, table, ["curve"])

    def _events(self, run: PanelRun[Setting]) -> Iterator[Any]:
        def begin() -> Iterator[Step | Epoch]:
            for step in range(1, self.steps + 1):
                time.sleep(0.01)
                yield Step(1, step, self.steps, {"TI": torch.tensor(1.0 / step)})

        def all_events() -> Iterator[Any]:
            yield from replay.played(run.choice, begin, lambda event: {})
            yield replay.Observation(1, 1, {}, None)

        return all_events()

    def _epoch(self, run: PanelRun[Setting], seen: replay.Observation) -> None:
        run.add(seen.epoch, accuracy=run.choice.rate / 2)

    def paints(self) -> dict[str, Any]:
        return {"curve": partial(training.draw_runs, runs=list(self.runs), name="accuracy")}

    def told(self) -> str:
        return f"{len(self.runs)} runs"


@pytest.fixture
def make() -> Iterator[Callable[..., SmallPanel]]:
    made: list[SmallPanel] = []

    def panel(first: Setting | None = None) -> SmallPanel:
        made.append(SmallPanel(first))
        return made[-1]

    yield panel
    for one in made:
        one.stop()
        assert one.session.join(10)
        assert one.box.errors == []


# controls


@pytest.mark.parametrize("name", [n for n, knob in knobs().items() if not knob.choices])
def test_a_slider_of_the_recipe_has_its_range_scale_and_help(name: str) -> None:
    knob, value = knobs()[name], getattr(Recipe(), name)
    slider = recipe_slider(name, value)
    low, high = (10**slider.min, 10**slider.max) if knob.log else (slider.min, slider.max)
    assert (low, high) == pytest.approx((knob.low, knob.high))
    assert slider.value == pytest.approx(value)
    assert slider.description == knob.label
    assert slider.tooltip == knob.help
    assert slider.continuous_update is False


def test_a_control_writes_its_values() -> None:
    assert written(IntSlider(), 3) == "3"
    assert written(FloatSlider(readout_format=".0%"), 0.25) == "25%"
    assert written(Dropdown(options=("x", "y")), "x") == "x"
    assert written(Dropdown(options=titled({"x": "the first", "y": "the second"})), "y") == "the second"


def test_every_control_and_button_can_be_found_in_a_page(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    for name, widget in {**panel.controls, **panel.buttons}.items():
        assert f"socketlab-{name}" in widget._dom_classes


# runs


def test_runs_are_kept_side_by_side(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    assert panel.run(wait=True) == "finished"
    panel.controls["rate"].value = 2.0
    panel.run(wait=True)
    assert [run.choice for run in panel.runs] == [Setting(), Setting(2.0)]
    assert panel.headline.value == "2 runs"
    assert panel.table.value.count("<tr") == 3
    first, second = panel.table.value.split("<tr")[2:]
    assert "rate 2.00" in second and "rate" not in first
    assert "50.0&nbsp;%" in panel.table.value and "100.0&nbsp;%" in panel.table.value
    assert "run 2 from 1.00 to 1.00" in panel.words.value
    panel.buttons["reset"].click()
    assert (panel.runs, panel.choice, panel.table.value) == ([], Setting(), "")
    assert panel.session.state == "ready"


def test_the_menu_of_experiments_moves_the_controls_and_follows_them(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    menu = panel.controls["experiment"]
    assert menu.value == "plain"
    menu.value = "long"
    assert panel.choice == Setting(1.0, 9)
    panel.controls["rate"].value = 0.5
    assert (menu.value, panel.choice) == ("", Setting(0.5, 9))
    panel.set(Setting(2.0))
    assert menu.value == "fast"
    panel.controls["colour"].value = "blue"  # only what is shown
    assert menu.value == "fast"


def test_a_change_during_a_run_is_kept_and_one_that_goes_on_is_one(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    run = PanelRun(1, Setting())
    for before, after, step in ((3.0, 2.0, 40), (2.0, 0.0, 42), (0.0, 1.0, 90)):
        run.change("λ_TI", before, after, step, epoch=2)
    assert [str(change) for change in run.changes] == ["λ_TI 3 → 0 at step 42", "λ_TI 0 → 1 at step 90"]
    panel.runs = [run]
    panel.show_runs()
    assert "changed: λ_TI 3 → 0 at step 42; λ_TI 0 → 1 at step 90" in panel.table.value


def test_a_panel_leaves_a_sentence_where_no_kernel_runs(make: Callable[..., SmallPanel]) -> None:
    bundle = make()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "Run this cell to use it" in bundle["text/plain"]
    assert "Run this cell to use it" in bundle["text/html"]


# the page's side


def test_what_the_page_reports_reaches_the_pictures(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    panel.run(wait=True)
    panel._fit({"curve": [900, 450], "other": [9, 9]})
    assert panel.pictures["curve"].wait(20)
    assert panel.pictures["curve"].width == 2 * panel.pictures["curve"].height


# recorded experiments


@pytest.fixture
def recorded(make: Callable[..., SmallPanel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three experiments are recorded, and the tier is replay."""
    monkeypatch.setenv("SOCKETLAB_DATA", str(tmp_path))
    monkeypatch.setenv(replay.SETTING, "laptop")
    monkeypatch.setenv(replay.RECORDING, "1")
    for choice in (Setting(), Setting(2.0)):
        panel = make()
        panel.set(choice)
        panel.run(wait=True)
    write_manifest(tmp_path)
    monkeypatch.delenv(replay.RECORDING)
    monkeypatch.setenv(replay.SETTING, "replay")


def test_at_replay_the_menu_has_what_was_recorded_and_all_else_is_locked(
    recorded: None, make: Callable[..., SmallPanel]
) -> None:
    panel = make()
    assert list(panel.experiments) == ["plain", "fast"]
    assert panel.controls["rate"].disabled and panel.controls["count"].disabled
    assert not panel.controls["experiment"].disabled and not panel.controls["colour"].disabled
    for title in panel.experiments:
        panel.controls["experiment"].value = title
        assert panel.run(wait=True) == "finished"
        assert panel.runs[-1].choice == panel.experiments[title]
        assert panel.runs[-1].outcome == "recorded"
    panel.reset()
    assert panel.run(wait=True) == "finished"


def test_at_replay_a_panel_begins_with_settings_that_were_recorded(
    recorded: None, make: Callable[..., SmallPanel]
) -> None:
    panel = make(Setting(0.5))
    assert panel.choice == Setting()
    assert panel.run(wait=True) == "finished"


def test_at_replay_other_settings_are_refused_before_anything_is_erased(
    recorded: None, make: Callable[..., SmallPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()
    panel.run(wait=True)
    picture, table, runs = panel.pictures["curve"].image.value, panel.table.value, list(panel.runs)
    panel.set(Setting(0.5))
    with pytest.raises(LabError, match=r"choose one in the menu 'experiment' \(plain, fast\), or set"):
        panel.run(wait=True)
    monkeypatch.delenv("SOCKETLAB_STRICT", raising=False)
    panel.buttons["run"].click()
    assert "choose one in the menu" in panel.box.value
    assert panel.pictures["curve"].image.value == picture
    assert (panel.table.value, panel.runs, len(runs)) == (table, runs, 1)
    panel.box.clear()


# guess first


def falls(panel: Any) -> training.Outcome:
    return (OPTIONS[2], "Pairs did the work.") if panel.runs else None


def test_the_outcome_stands_beside_the_guess_after_a_run(make: Callable[..., SmallPanel]) -> None:
    panel = make()
    guess = Guess("What happens?", OPTIONS, falls).follow(panel)
    assert "No guess" in guess.answer.value
    panel.run(wait=True)
    assert guess.revealed is None  # not before a guess
    guess.picker.value = "it stays"
    assert "Your guess: <b>it stays</b>." in guess.answer.value
    panel.run(wait=True)
    assert guess.revealed == OPTIONS[2]
    for words in ("Your guess: <b>it stays</b>", "it falls &lt; 50 %", "≠", "Pairs did the work."):
        assert words in guess.answer.value
    guess.picker.value = OPTIONS[2]
    assert "✓" in guess.answer.value


def test_no_outcome_yet(make: Callable[..., SmallPanel]) -> None:
    guess = Guess("What happens?", OPTIONS, falls)
    guess.picker.value = "it rises"
    assert guess.reveal(make()) is None


def test_readers_without_a_kernel_see_the_options() -> None:
    data = Guess("What happens to <i>accuracy</i>?", OPTIONS, lambda panel: "it rises")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].splitlines()[0] == "Guess first. What happens to accuracy?"
    assert all(option in data["text/plain"] for option in OPTIONS)
    assert data["text/html"].count("<li>") == 3
    assert "it falls &lt; 50 %" in data["text/html"]


def test_an_outcome_that_is_no_option_is_an_error(make: Callable[..., SmallPanel]) -> None:
    guess = Guess("What happens?", OPTIONS, lambda panel: "something else")
    guess.picker.value = "it rises"
    with pytest.raises(LabError, match="outcome 'something else' is unknown"):
        guess.reveal(make())


@pytest.mark.parametrize("options", [(), ("one",), ("same", "same")])
def test_a_guess_needs_options(options: Sequence[str]) -> None:
    with pytest.raises(LabError, match="two different options"):
        Guess("What happens?", options, lambda panel: None)
