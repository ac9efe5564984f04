"""The panel of batch-norm statistics, driven without a browser; its answers as plain values."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from panel_tools import end_all, pixels
from PIL import Image
from worlds import patterned, trained_source

from socketlab import features
from socketlab.errors import LabError
from socketlab.measures import bn_moments
from socketlab.method.adaptation import Epoch, adapt
from socketlab.method.losses import gaussian_divergence
from socketlab.panels.statistics import (
    ChannelView,
    LayerReading,
    StatisticsBench,
    StatisticsChoice,
    StatisticsPanel,
)

QUICK = StatisticsChoice(batch_size=8, epochs=1)


def tiny() -> StatisticsBench:
    return StatisticsBench(trained_source(), patterned(64, 1).only("depth"), patterned(24, 3))


@pytest.fixture(scope="module")
def bench() -> StatisticsBench:
    return tiny()


@pytest.fixture
def make() -> Iterator[Callable[..., StatisticsPanel]]:
    """Makes panels on a tiny world; at the end none may be left with an error that nobody expected."""
    made: list[StatisticsPanel] = []

    def panel(
        choice: StatisticsChoice = QUICK, gather: Callable[[], StatisticsBench] = tiny
    ) -> StatisticsPanel:
        made.append(StatisticsPanel(choice, gather))
        made[-1].wait(60)
        return made[-1]

    yield panel
    end_all(made)


# plain values


def test_the_answer_is_that_of_the_layers_themselves(bench: StatisticsBench) -> None:
    choice = replace(QUICK, modality="rgb", batch_size=24)
    found = LayerReading(bench, choice)
    source, images = trained_source(), patterned(24, 3).only("rgb")
    seen = bn_moments.norm_statistics(source.network, images, source.normalisation)
    torch.testing.assert_close(found.batch[1], seen[0].var, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.everything[0], seen[0].mean, rtol=1e-5, atol=1e-6)
    gaps = [float(gaussian_divergence(s.mean, s.var, s.running_mean, s.running_var).mean()) for s in seen]
    assert found.profile == pytest.approx(gaps, rel=1e-4)
    assert f"A batch of 24 gives N = {seen[0].count:,} values" in found.words
    assert f"<b>{gaps[0]:.3f}</b> nats" in found.words


def test_the_factor_of_the_unbiased_variance_is_told(bench: StatisticsBench) -> None:
    last = LayerReading(bench, replace(QUICK, layer=bench.layers[-1], batch_size=2))
    assert "N = 2 values" in last.words  # no places after the average: images alone
    assert "N / (N − 1) = <b>2</b>" in last.words
    others = [LayerReading(bench, replace(QUICK, seed=seed)).batch[0] for seed in (0, 0, 1)]
    assert torch.equal(others[0], others[1]) and not torch.equal(others[0], others[2])


def test_a_matching_run_is_adapt_with_one_loss() -> None:
    recipe = StatisticsChoice(lambda_bn=0.3, layers="first", by="running", epochs=3).recipe
    assert (recipe.lambda_bn, recipe.bn_layers, recipe.bn_mode, recipe.epochs) == (0.3, "first", "running", 3)
    assert recipe.lambda_ti == recipe.lambda_pl == recipe.lambda_im == recipe.align_epochs == 0


# the panel


def test_a_panel_answers_by_itself(make: Callable[..., StatisticsPanel]) -> None:
    panel = make()
    assert tuple(panel.controls["layer"].options) == tuple(panel.bench().layers)
    assert "8 images" in panel.headline.value or "batch of 8" in panel.headline.value
    for name in ("mean", "standard deviation"):
        assert f"remembered {name} of each channel; mean distance" in panel.pictures["channels"].alt
    assert "AdaBN" in panel.pictures["accuracy"].alt and "source only" in panel.pictures["accuracy"].alt


@pytest.mark.parametrize("where", ["min", "max"])
@pytest.mark.parametrize("name", ["batch_size", "seed"])
def test_sliders_answer_at_their_ends(make: Callable[..., StatisticsPanel], name: str, where: str) -> None:
    panel = make()
    shown = panel.pictures["channels"]
    before = pixels(shown)
    panel.controls[name].value = getattr(panel.controls[name], where)
    panel.wait(60)
    changed = (before != pixels(shown)).any()
    assert changed == (getattr(panel.choice, name) != getattr(QUICK, name))


@pytest.mark.parametrize("name", ["layer", "modality"])
def test_every_layer_and_modality(make: Callable[..., StatisticsPanel], name: str) -> None:
    panel = make()
    told = set()
    for option in panel.controls[name].options:
        panel.controls[name].value = option[1] if isinstance(option, tuple) else option
        panel.wait(60)
        told.add(panel.headline.value + panel.pictures["channels"].alt)
    assert len(told) == len(panel.controls[name].options)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lambda_bn", "min"), ("lambda_bn", "max"), ("epochs", "min"), ("layers", "first"), ("layers", "late"),
     ("by", "running"), ("by", "batch")],
)  # fmt: skip
def test_runs_at_the_ends_of_their_controls(
    make: Callable[..., StatisticsPanel], name: str, value: str
) -> None:
    panel = make()
    control = panel.controls[name]
    control.value = getattr(control, value) if value in ("min", "max") else value
    assert panel.run(wait=True, timeout=120) == "finished"
    (run,) = panel.runs
    assert run.epochs == [0, 1]
    assert len(run.last("profile")) == len(panel.bench().layers)


def test_a_run_gives_the_numbers_of_the_plain_loop(make: Callable[..., StatisticsPanel]) -> None:
    panel = make()
    panel.run(wait=True, timeout=120)
    bench = tiny()
    events = list(adapt(bench.source, bench.target, None, QUICK.recipe, seed=0))
    losses = [float(event.losses["BN"]) for event in events if not isinstance(event, Epoch)]
    assert panel.runs[0].losses["BN"] == pytest.approx(losses)
    assert panel.runs[0].values["accuracy"][0] == pytest.approx(panel.bench().levels["AdaBN"])
    assert "run 1" in panel.pictures["accuracy"].alt and "run 1" in panel.pictures["loss"].alt
    assert "matched" in panel.pictures["layers"].alt
    assert panel.table.value.count("<tr") == 2


def test_long_runs_stop_and_reset(make: Callable[..., StatisticsPanel]) -> None:
    panel = make(replace(QUICK, epochs=20))
    heard: list[int] = []
    panel.listeners.append(lambda: heard.append(1))
    panel.buttons["run"].click()
    seen = threading.Event()
    while not (panel.runs and panel.runs[0].losses):
        assert not seen.wait(0.01)
    panel.buttons["run"].click()
    panel.buttons["stop"].click()
    assert panel.session.wait(20) == "stopped"
    assert heard == []  # nobody is told of a run that was stopped
    assert "stopped" in panel.table.value
    panel.buttons["reset"].click()
    assert panel.runs == []
    assert panel.table.value == ""
    assert panel.choice == replace(QUICK, epochs=20, layer=panel.bench().layers[0])


def test_an_error_while_loading_is_seen(make: Callable[..., StatisticsPanel]) -> None:
    def gather() -> StatisticsBench:
        raise LabError("data/pocketrooms/index.csv is missing.")

    panel = make(gather=gather)
    assert "is missing" in panel.box.value
    with pytest.raises(LabError, match="missing"):
        panel.run(wait=True, timeout=60)
    panel._gather = tiny
    assert panel.run(wait=True, timeout=120) == "finished"
    assert panel.box.value == ""


def test_an_error_in_a_callback_is_seen(
    make: Callable[..., StatisticsPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = make()

    def fails(*_: object) -> None:
        raise LabError("No such layer.")

    monkeypatch.setattr("socketlab.panels.statistics.LayerReading", fails)
    panel.controls["batch_size"].value = 4
    panel.wait(60)
    assert "No such layer" in panel.box.value
    panel.box.clear()


def test_a_still_shows_all_pictures(make: Callable[..., StatisticsPanel]) -> None:
    panel = make()
    panel.run(wait=True, timeout=120)
    plain = panel.still()
    assert Image.open(io.BytesIO(plain.data)).width >= 1180
    for words in ("this batch", "AdaBN", "run 1", "all images"):
        assert words in plain.alt


def test_looking_at_another_layer_is_no_other_experiment(make: Callable[..., StatisticsPanel]) -> None:
    panel = make()
    assert panel.controls["experiment"].value == "match all layers"
    panel.controls["layer"].value = panel.bench().layers[-1]
    panel.controls["batch_size"].value = 4
    assert panel.controls["experiment"].value == "match all layers"
    panel.controls["experiment"].value = "match the first layer"
    assert panel.choice.layers == "first"
    assert (panel.choice.layer, panel.choice.batch_size) == (panel.bench().layers[-1], 4)


# one channel


def test_in_training_the_output_stands_still_in_evaluation_it_runs_away() -> None:
    view = ChannelView(trained_source(), patterned(16, 3).only("depth"))
    view.picture.wait(60)
    assert "the source's" in view.picture.alt and "output in training" in view.picture.alt
    channel = view.channels[0]
    batch = channel.values
    assert batch.ndim == 1 and len(batch) % 16 == 0
    still, moved = (channel.output(*there, training=True) for there in ((1.0, 0.0), (3.0, 2.0)))
    torch.testing.assert_close(moved, still, rtol=1e-3, atol=1e-3)
    assert still.mean().item() == pytest.approx(channel.bias, abs=1e-6)
    away = channel.output(1.0, 2.0, training=False) - channel.output(1.0, 0.0, training=False)
    assert away.mean().item() == pytest.approx(2 * channel.weight, rel=1e-3)
    before = pixels(view.picture)
    view.controls["shift"].value = 2.0
    view.picture.wait(60)
    trained = pixels(view.picture)
    view.controls["mode"].value = "evaluation"
    view.picture.wait(60)
    assert (trained != before).any() and (pixels(view.picture) != trained).any()
    assert "output in evaluation" in view.picture.alt
    assert view.headline.value.startswith("training: output mean")
    assert view.box.errors == []


def test_a_channel_of_the_layer_itself() -> None:
    """In evaluation the view's output is that of the layer."""
    source, images = trained_source(), patterned(16, 3).only("rgb")
    view = ChannelView(source, images)
    name = view.controls["channel"].tooltip.removeprefix("of ")
    seen: list[torch.Tensor] = []
    handle = source.network.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2].detach()))
    features.predict(source, images)
    handle.remove()
    expected = torch.cat(seen)[:, 0].double().flatten()
    torch.testing.assert_close(view.channels[0].output(1.0, 0.0, False), expected, rtol=1e-4, atol=1e-4)


def test_controls_can_be_found_in_a_browser(make: Callable[..., StatisticsPanel]) -> None:
    panel = make()
    for name, widget in {**panel.controls, **panel.buttons}.items():
        assert f"socketlab-{name.replace('_', '-')}" in widget._dom_classes
