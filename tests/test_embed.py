"""Maps of feature space: exact neighbours, same seed same map, one fit at a time."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from socketlab import embed
from socketlab.errors import LabError


def blobs(n: int = 40, width: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Two sets of three blobs each, far apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, width)) * 10
    return {name: centres[np.arange(n) % 3] + rng.normal(size=(n, width)) for name in ("rgb", "depth")}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 40), width=st.integers(1, 6), seed=st.integers(0, 9))
def test_neighbours_are_exact(n: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, width))
    k = min(5, n)
    indices, distances = embed.nearest_neighbours(x, k)
    truth = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert (indices[:, 0] == np.arange(n)).all()
    np.testing.assert_allclose(distances, np.sort(truth, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(truth[np.arange(n)[:, None], indices], distances, atol=1e-5)


def test_duplicates_do_not_push_a_point_out_of_its_own_list() -> None:
    indices, _ = embed.nearest_neighbours(np.ones((10, 3)), 4)
    assert (indices[:, 0] == np.arange(10)).all()


def test_joint_map_keeps_names_sizes_and_blobs() -> None:
    sets = blobs()
    sets["third"] = torch.as_tensor(sets["rgb"][:7])
    drawn = embed.joint_map(sets, seed=1)
    assert list(drawn) == ["rgb", "depth", "third"]
    assert [p.shape for p in drawn.values()] == [(40, 2), (40, 2), (7, 2)]
    points, blob = drawn["rgb"], np.arange(40) % 3
    centre = np.stack([points[blob == b].mean(axis=0) for b in range(3)])
    nearest = np.linalg.norm(points[:, None] - centre, axis=2).argmin(axis=1)
    assert (nearest == blob).all()


def test_same_seed_same_map_and_another_seed_another() -> None:
    first, again, other = (embed.joint_map(blobs(), seed=s)["rgb"] for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_start_is_kept_in_place() -> None:
    sets = blobs()
    first = embed.joint_map(sets, seed=0)
    mirrored = {name: points * np.float32([-1, 1]) for name, points in first.items()}
    moved = embed.joint_map(sets, seed=0, start=mirrored)
    x_then, x_now = (np.concatenate([m["rgb"], m["depth"]])[:, 0] for m in (mirrored, moved))
    assert np.corrcoef(x_then, x_now)[0, 1] > 0.9


def test_no_warning_reaches_the_reader() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        embed.joint_map(blobs())
    assert [str(w.message) for w in seen if "knn" in str(w.message) or "n_jobs" in str(w.message)] == []


def test_two_threads_take_turns() -> None:
    maps: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: maps.append(embed.joint_map(blobs())["rgb"])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(maps) == 3
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])


def test_warm_up_starts_once() -> None:
    first, second = embed.warm_up(), embed.warm_up()
    assert first is second
    first.join(120)
    assert embed.is_warm()


def test_pca_finds_the_long_axis_and_projects_the_rest() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(200, 4)) * [0.1, 5.0, 1.0, 0.1]
    drawn = embed.pca_map({"source": source, "target": source + np.array([0, 3, 0, 0])}, fit_on="source")
    assert abs(np.corrcoef(drawn["source"][:, 0], source[:, 1])[0, 1]) > 0.99
    assert np.corrcoef(drawn["source"][:, 0], source[:, 1])[0, 1] > 0  # the sign is settled
    shift = (drawn["target"] - drawn["source"]).mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(shift), 3.0, atol=0.05)


def test_mixing_tells_islands_from_one_cloud() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(400, 5))
    assert embed.mixing(cloud[:200], cloud[200:] + 50) == 1.0
    assert embed.mixing(cloud[:200], cloud[200:]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({}, "at least one set"),
        ({"a": np.zeros((9, 3)), "b": np.zeros((9, 4))}, "one width"),
        ({"a": np.zeros(9)}, "one width"),
        ({"a": np.full((9, 3), np.nan)}, "NaN"),
        ({"a": np.zeros((3, 3))}, "at least 5 points"),
    ],
)
def test_bad_features_are_refused_in_a_sentence(sets: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(LabError, match=words):
        embed.joint_map(sets)


def test_importing_the_module_does_not_import_umap() -> None:
    code = "import sys, socketlab.embed; sys.exit('umap' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
