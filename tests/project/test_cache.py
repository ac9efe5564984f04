"""The cache: whole entries or none, by content, within its room."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from socketlab.cache import Cache, Entry, cache_folder, fingerprint, opened
from socketlab.errors import LabError

KEYS = [fingerprint(i) for i in range(5)]


def writer(array: np.ndarray, calls: list[int] | None = None):
    """What makes an entry of one array, and counts how often it is asked."""

    def make(entry: Entry) -> None:
        if calls is not None:
            calls.append(1)
        entry.save({"layer1.0/é": array})

    return make


def test_made_once_then_read(tmp_path):
    calls: list[int] = []
    cache, array = Cache(tmp_path), np.arange(12.0).reshape(3, 4)
    first, again = (cache.get(KEYS[0], writer(array, calls)) for _ in range(2))
    assert len(calls) == 1
    assert list(first) == list(again) == ["layer1.0/é"]
    np.testing.assert_array_equal(again["layer1.0/é"], array)
    cache.get(KEYS[1], writer(array, calls))
    assert len(calls) == 2


def test_more_than_the_room_stays_in_its_file(tmp_path):
    cache, array = Cache(tmp_path), np.ones((100, 100))
    mapped = cache.get(KEYS[0], writer(array), room=1000)["layer1.0/é"]
    held = cache.get(KEYS[0], writer(array), room=10**6)["layer1.0/é"]
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    assert not isinstance(held, np.memmap)
    np.testing.assert_array_equal(mapped, held)


@pytest.mark.parametrize(
    "damage", ["shorter", "no list", "half a list", "empty list", "a table", "nested", "file gone"]
)
def test_damaged_entry_is_made_again(tmp_path, damage):
    calls: list[int] = []
    cache, array = Cache(tmp_path), np.arange(1000.0)
    cache.get(KEYS[0], writer(array, calls))
    data, about = tmp_path / KEYS[0] / "0.npy", tmp_path / KEYS[0] / "names.json"
    whole = data.read_bytes()
    match damage:
        case "shorter":
            data.write_bytes(whole[:-100])
        case "no list":
            about.unlink()
        case "half a list":
            about.write_text(about.read_text()[:-20])
        case "empty list":
            about.write_text("[]")
        case "a table":
            about.write_text("{}")
        case "nested":
            about.write_text("[" * 100_000)
        case "file gone":
            data.unlink()
    found = cache.get(KEYS[0], writer(array, calls))
    assert len(calls) == 2
    np.testing.assert_array_equal(found["layer1.0/é"], array)


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_interrupted_entry_leaves_nothing(tmp_path, fault):
    def make(entry: Entry) -> None:
        entry.save({"x": np.ones(10)})
        raise fault

    with pytest.raises(fault):
        Cache(tmp_path).get(KEYS[0], make)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_told(tmp_path):
    def make(entry: Entry) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LabError, match=r"the disk is full.*SOCKETLAB_CACHE"):
        Cache(tmp_path).get(KEYS[0], make)


def test_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot be written"):
        Cache(tmp_path / "file").get(KEYS[0], writer(np.ones(3)))


def test_unused_for_longest_goes_first(tmp_path):
    array = np.ones(1000)
    size = array.nbytes + 1000  # with header and list
    cache = Cache(tmp_path, limit=3 * size)
    for key in KEYS[:3]:
        cache.get(key, writer(array))
    cache.load(KEYS[0])  # used again: now the second is the oldest
    cache.get(KEYS[3], writer(array))
    assert {path.name for path in tmp_path.iterdir()} == {KEYS[0], KEYS[2], KEYS[3]}


def test_the_newest_stays_however_large_and_strangers_are_left_alone(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    cache = Cache(tmp_path, limit=10)
    for key in KEYS[:2]:
        cache.get(key, writer(np.ones(1000)))
    assert {path.name for path in tmp_path.iterdir()} == {KEYS[1], "letters"}
    assert (tmp_path / "letters" / "dear.txt").exists()


def test_the_same_entry_by_two_at_once(tmp_path):
    """The second to finish finds the first's entry in place, and keeps that."""
    cache = Cache(tmp_path)

    def make(entry: Entry) -> None:
        Cache(tmp_path).get(KEYS[0], writer(np.zeros(3)))
        entry.save({"layer1.0/é": np.zeros(3)})

    np.testing.assert_array_equal(cache.get(KEYS[0], make)["layer1.0/é"], np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == [KEYS[0]]


def test_array_that_would_need_unpickling_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pickle"):
        Cache(tmp_path).get(KEYS[0], writer(np.array([{}])))
    Cache(tmp_path).get(KEYS[0], writer(np.ones(3)))
    assert json.loads((tmp_path / KEYS[0] / "names.json").read_text()) == ["layer1.0/é"]


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("SOCKETLAB_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == Cache().folder == tmp_path / "mine"
    monkeypatch.setenv("SOCKETLAB_CACHE", "~nosuchuser/cache")
    with pytest.raises(LabError, match="SOCKETLAB_CACHE=~nosuchuser/cache is no folder"):
        cache_folder()
    monkeypatch.delenv("SOCKETLAB_CACHE")
    assert cache_folder().name == "socketlab"
    assert cache_folder().is_absolute()
    assert opened(None) is None
    assert opened(tmp_path).folder == Path(tmp_path)


@given(st.lists(st.integers(0, 255), min_size=2, max_size=20), st.data())
def test_fingerprint_sees_every_element(values, data):
    tensor = torch.tensor(values, dtype=torch.float32)
    changed = tensor.clone()
    changed[data.draw(st.integers(0, len(values) - 1))] += 1
    assert fingerprint(tensor) == fingerprint(tensor.clone())
    assert fingerprint(tensor) != fingerprint(changed)


def test_fingerprint_tells_apart_what_could_be_confused():
    x = torch.arange(6, dtype=torch.float32)
    alike = [
        *(x, x.view(2, 3), x.view(3, 2), x.double(), x.int(), x.view(torch.int32), x.numpy(), x.half()),
        *([x, 1], [x, "1"], [x, 1.0], [x, True], [x, None], [[x], 1], {"x": x}, [["x", x]], x.bfloat16()),
        *(["ab", "c"], ["a", "bc"], "abc", ["abc"], b"abc", [], {}, None, "None"),
    ]
    assert len({fingerprint(part) for part in alike}) == len(alike)


def test_fingerprint_does_not_see_the_layout_in_memory():
    x = torch.rand(2000, 3, 4, 4)
    laid_out = x.to(memory_format=torch.channels_last)
    assert laid_out.stride() != x.stride()
    assert fingerprint(laid_out) == fingerprint(x) == fingerprint(x[:, :].clone())
    assert fingerprint(x.numpy()[::2]) == fingerprint(x.numpy()[::2].copy())
    with pytest.raises(TypeError, match="no fingerprint"):
        fingerprint(object())
