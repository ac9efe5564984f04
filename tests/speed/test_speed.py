"""The benchmark of speed: its arithmetic, and its reduced form, which holds the bounds."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("speed")


def test_forms_take_turns_and_are_compared_round_by_round(speed):
    """A clock that runs ever faster: each quotient is of two times of one round."""
    ticks = {"now": 0.0, "pace": 1.0}

    def work(amount):
        ticks["pace"] *= 1.2  # the machine slows down all the time
        ticks["now"] += amount * ticks["pace"]

    forms = {"one": lambda: work(2.0), "other": lambda: work(1.0)}
    seconds = speed.alternate(forms, 40, torch.device("cpu"), lambda: ticks["now"], warm=2)
    assert all(len(taken) == 40 for taken in seconds.values())
    ratio = speed.quotient(seconds, "one", "other")
    assert 2 / 1.2 - 1e-9 <= ratio.low <= ratio.median <= ratio.high <= 2 * 1.2 + 1e-9


def test_step_written_out_does_what_the_terms_say(speed, monkeypatch):
    """All four terms learn from a step, and without BN matching three."""
    bench = speed.Bench(torch.device("cpu"), width=8, side=28, batch=8, sources=2)
    before = [p.detach().clone() for p in bench.state.networks[1].trunk.parameters()]
    for group in bench.state.optimiser.param_groups:
        group["lr"] = 0.1
    found = []
    original = speed.steps.total_loss

    def weighted(terms, recipe):
        found.append(sorted(terms))
        return original(terms, recipe)

    monkeypatch.setattr(speed.steps, "total_loss", weighted)
    bench.step(speed.ALL_TERMS)
    bench.step(speed.ALL_TERMS.replace(lambda_bn=0.0))
    assert found == [["BN", "IM", "PL", "TI"], ["IM", "PL", "TI"]]
    after = bench.state.networks[1].trunk.parameters()
    assert not any(torch.equal(p, q) for p, q in zip(after, before, strict=True))
    bench.floor()()


def test_a_redraw_is_timed(speed):
    assert 0 < speed.redraws(2).median < 60


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_ratio_breaks_its_bound():
    """BN matching, floor, pipeline and import, in processor time, with margins for a busy machine.

    The other tests share the machine's caches: a bound is broken when it breaks three times in a row.
    """
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick"]
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout)
        if done.returncode == 0:
            return
    pytest.fail(done.stderr)


def test_a_broken_bound_is_noticed(speed, monkeypatch):
    """The reduced form with a BN matching that costs half a step more."""

    def slow(forms, rounds, device, clock, warm=3):
        taken = {"step": 1.5, "again": 1.5, "without BN": 1.0, "floor": 1.4, "pipeline": 0.01}
        return {name: [taken[name]] * rounds for name in forms}

    monkeypatch.setattr(speed, "alternate", slow)
    monkeypatch.setattr(speed, "imports", lambda times: (speed.Spread(0, 0, 0), speed.Spread(0.01, 0, 0)))
    monkeypatch.setattr(speed, "step_forms", lambda recipe, rounds: dict.fromkeys(
        ("step", "again", "without BN", "floor", "pipeline")
    ))  # fmt: skip
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    broken = speed.quick()
    assert len(broken) == 2 and all("BN matching" in sentence for sentence in broken)
