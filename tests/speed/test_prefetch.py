"""Batches made ahead, and images that lie elsewhere than the network: the same numbers, never a whole set."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import patterned, trained_source

from socketlab import features
from socketlab.images import paired_images
from socketlab.images.paired_images import PairedImages, cut_views, draw_views
from socketlab.method.adaptation import Epoch, adapt
from socketlab.method.recipe import Recipe
from socketlab.speed import prefetch

QUICK = Recipe(batch_size=8, align_epochs=1, epochs=1, lambda_bn=0.5)
CPU = torch.device("cpu")


def final_weights(source, target, many) -> dict[str, torch.Tensor]:
    for event in adapt(source, target, many, QUICK, seed=2):
        if isinstance(event, Epoch):
            last = event.state.adapted
    return last.network.state_dict()


def mapped(images: PairedImages, folder: Path) -> PairedImages:
    """The same images, in files that are mapped into memory."""
    found = {}
    for name, stored in images.images.items():
        np.save(folder / f"{name}-{len(images)}.npy", stored.numpy())
        found[name] = torch.from_numpy(np.load(folder / f"{name}-{len(images)}.npy", mmap_mode="c"))
    return PairedImages(found, images.names, images.kinds, images.classes)


# One batch ahead


def counted(made: list[int], stop: int):
    def make() -> int:
        made.append(len(made))
        return made[-1]

    return prefetch.in_a_thread(make, lambda number: number == stop)


def test_the_next_is_made_while_this_one_is_used():
    reached, go_on = threading.Event(), threading.Event()
    made = []

    def make() -> int:
        if made:
            reached.set()
            assert go_on.wait(20)
        made.append(threading.current_thread().name)
        return len(made)

    numbers = prefetch.in_a_thread(make, lambda number: number == 3)
    assert next(numbers) == 1
    assert reached.wait(20)  # the second is under way though nobody asked for it
    go_on.set()
    assert list(numbers) == [2]
    assert all(name.startswith("prefetch") for name in made)


def test_order_end_and_leaving_early():
    made = []
    assert list(counted(made, 6)) == list(range(6)) and len(made) == 7
    some, threads = [], threading.active_count()
    numbers = counted(some, 100)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    numbers.close()
    assert len(some) == 4 and threading.active_count() == threads


def test_an_error_comes_when_its_turn_comes():
    steps = iter([1, 2])

    def make() -> int:
        try:
            return next(steps)
        except StopIteration:
            raise ValueError("the disk is gone") from None

    numbers = prefetch.in_a_thread(make, lambda number: False)
    assert [next(numbers), next(numbers)] == [1, 2]
    with pytest.raises(ValueError, match="the disk is gone"):
        next(numbers)


def test_in_one_place_a_batch_is_made_when_it_is_asked_for():
    made = []
    batches = prefetch.prefetched((made.append(i) or i for i in range(3)), CPU, CPU)
    assert made == [] and next(batches) == 0 and made == [0]
    threads = threading.active_count()
    assert list(batches) == [1, 2] and threading.active_count() == threads


class Stream:
    """Stands for a stream of a GPU: it knows what it was asked to wait for."""

    def __init__(self, *about):
        self.events = []

    def record_event(self):
        return object()

    def wait_event(self, event):
        self.events.append(event)


def test_every_copy_is_waited_for(monkeypatch):
    here = Stream()
    nothing = contextlib.nullcontext
    for name, value in {"Stream": Stream, "device": nothing, "stream": nothing}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: here)
    batches = [{"rgb": torch.full((2,), i)} for i in range(4)]
    found = list(prefetch.prefetched(iter(batches), torch.device("cuda", 0), torch.device("cuda", 0), CPU))
    assert all(one is other for one, other in zip(found, batches, strict=True))
    assert len(set(here.events)) == 4


def test_tensors_of_a_batch_are_found():
    a, b, c = torch.zeros(3, 1)
    assert [id(x) for x in prefetch.tensors((a, None, [{"x": b}, {"y": c}]))] == [id(a), id(b), id(c)]


# Images elsewhere


def test_pictures_cut_after_the_copy_are_those_cut_before(monkeypatch):
    scenes, rows = patterned(12, 3), torch.tensor([5, 0, 7, 7])
    views = draw_views(scenes, 4, torch.Generator().manual_seed(0))
    copied = []

    def on_device(images, device):
        if images.ndim == 4:  # pictures, not the places in them
            copied.append(images.shape)
        return images

    monkeypatch.setattr(paired_images, "on_device", on_device)
    expected = cut_views(scenes, rows, views)
    assert not copied
    found = cut_views(scenes, rows, views, device=torch.device("meta"))
    assert copied == [(4, 3, 64, 64), (4, 1, 64, 64)]  # no more than the batch
    assert all(torch.equal(found[name].int(), expected[name].int()) for name in expected)


def test_mapped_images_give_the_numbers_of_those_in_memory(tmp_path):
    source, target, many = trained_source(), patterned(24, 1), patterned(20, 2).unlabelled()
    expected = final_weights(source, target.only("depth"), many)
    found = final_weights(source, mapped(target, tmp_path).only("depth"), mapped(many, tmp_path))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the kernel's account of a process")
def test_a_mapped_set_is_never_read_whole(tmp_path):
    """Twelve gigabytes behind three steps; and a whole run within a limit that its set would break."""
    places = [
        str(Path(prefetch.__file__).parents[2]),
        str(Path(__file__).parents[1]),
        os.environ.get("PYTHONPATH", ""),
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "large_set.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=380,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # megabytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_images_beside_the_gpu_give_the_numbers_of_those_on_it():
    source, many = trained_source(), patterned(20, 2).unlabelled()
    target = patterned(24, 1).only("depth")
    source.network.cuda()
    try:
        expected = final_weights(source, target.to("cuda"), many.to("cuda"))
        found = final_weights(source, target, many)
        close = {"rtol": 1e-3, "atol": 1e-3}  # a GPU's sums may come in another order
        torch.testing.assert_close(found, expected, **close)
        there, here = (
            features.predict(source, images)[0] for images in (many.only("rgb").to("cuda"), many.only("rgb"))
        )
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)
    finally:
        source.network.cpu()
