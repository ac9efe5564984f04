"""Maps of feature space: exact neighbours, same seed same map, one fit at a time."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.figures.map_quality import kept_neighbours, stability


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
    indices, distances = maps.nearest_neighbours(x, k)
    truth = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert (indices[:, 0] == np.arange(n)).all()
    np.testing.assert_allclose(distances, np.sort(truth, axis=1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(truth[np.arange(n)[:, None], indices], distances, atol=1e-5)


def test_duplicates_do_not_push_a_point_out_of_its_own_list() -> None:
    indices, _ = maps.nearest_neighbours(np.ones((10, 3)), 4)
    assert (indices[:, 0] == np.arange(10)).all()


def test_joint_map_keeps_names_sizes_and_blobs() -> None:
    sets = blobs()
    sets["third"] = torch.as_tensor(sets["rgb"][:7])
    drawn = maps.joint_map(sets, seed=1)
    assert list(drawn) == ["rgb", "depth", "third"]
    assert [p.shape for p in drawn.values()] == [(40, 2), (40, 2), (7, 2)]
    points, blob = drawn["rgb"], np.arange(40) % 3
    centre = np.stack([points[blob == b].mean(axis=0) for b in range(3)])
    nearest = np.linalg.norm(points[:, None] - centre, axis=2).argmin(axis=1)
    assert (nearest == blob).all()


def test_same_seed_same_map_and_another_seed_another() -> None:
    first, again, other = (maps.joint_map(blobs(), seed=s)["rgb"] for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_warning_reaches_the_reader() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        maps.joint_map(blobs())
    assert [str(w.message) for w in seen if "knn" in str(w.message) or "n_jobs" in str(w.message)] == []


def test_two_threads_take_turns() -> None:
    drawn: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: drawn.append(maps.joint_map(blobs())["rgb"])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(drawn) == 3
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])


def test_a_fit_leaves_pytorchs_threads_as_they_are() -> None:
    """UMAP's compiler sets them to all cores, in a process that was told to take one."""
    source = (
        "import numpy as np, torch\nfrom socketlab.figures import maps\n"
        "before = torch.get_num_threads()\n"
        "maps.joint_map({'a': np.random.default_rng(0).normal(size=(60, 8))}, seed=0)\n"
        "print(before, torch.get_num_threads())"
    )
    told = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=told, check=True)
    assert ran.stdout.split() == ["1", "1"]


def test_pca_finds_the_long_axis_and_projects_the_rest() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(200, 4)) * [0.1, 5.0, 1.0, 0.1]
    drawn = maps.pca_map({"source": source, "target": source + np.array([0, 3, 0, 0])}, fit_on="source")
    assert abs(np.corrcoef(drawn["source"][:, 0], source[:, 1])[0, 1]) > 0.99
    assert np.corrcoef(drawn["source"][:, 0], source[:, 1])[0, 1] > 0  # the sign is settled
    shift = (drawn["target"] - drawn["source"]).mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(shift), 3.0, atol=0.05)


def test_mixing_tells_islands_from_one_cloud() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(400, 5))
    assert maps.neighbour_purity(cloud[:200], cloud[200:] + 50) == 1.0
    assert maps.neighbour_purity(cloud[:200], cloud[200:]) == pytest.approx(0.5, abs=0.03)


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
        maps.joint_map(sets)


def test_importing_the_module_does_not_import_umap() -> None:
    code = "import sys, socketlab.figures.maps; sys.exit('umap' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# a map of one set, with others placed on it


def test_projected_points_lie_among_their_neighbours_and_leave_the_map_alone():
    sets = blobs()
    sets["third"] = sets["depth"][:11] + 0.1
    drawn = maps.projected_map(sets, "rgb", seed=1)
    assert list(drawn) == list(sets)
    assert [p.shape for p in drawn.values()] == [(40, 2), (40, 2), (11, 2)]
    for name in ("depth", "third"):
        nearest = np.linalg.norm(drawn[name][:, None] - drawn["rgb"], axis=2).argmin(axis=1)
        assert (nearest % 3 == np.arange(len(nearest)) % 3).all()
    alone = maps.projected_map({name: sets[name] for name in ("third", "rgb")}, "rgb", seed=1)
    assert np.array_equal(alone["rgb"], drawn["rgb"])
    assert np.array_equal(alone["third"], drawn["third"])


def test_a_umap_of_neighbours_alone_is_the_umap_of_their_features() -> None:
    sets = blobs()
    near, start = maps.nearest_neighbours(sets["rgb"], 10), maps.pca_map({"rgb": sets["rgb"]})["rgb"]
    told = maps._fit_on_neighbours(near, start, seed=0)
    own = maps._umap(near, start, seed=0).fit(sets["rgb"])
    assert np.array_equal(told.embedding_, own.embedding_)


@settings(max_examples=20)
@given(n=st.integers(5, 30), m=st.integers(1, 20), k=st.integers(1, 5), seed=st.integers(0, 9))
def test_others_are_placed_by_their_exact_neighbours(n: int, m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis, others = (rng.normal(size=(count, 3)).astype(np.float32) for count in (n, m))
    indices, distances = maps.nearest_neighbours(others, k, among=basis)
    truth = cdist(others, basis)
    np.testing.assert_allclose(distances, np.sort(truth, axis=1)[:, :k], rtol=1e-4)
    np.testing.assert_allclose(distances, np.take_along_axis(truth, indices, axis=1), rtol=1e-4)


def test_a_joint_map_exaggerates_a_gap_and_a_projected_one_hides_it() -> None:
    """Five classes and a shift as large as the noise: how far apart the modalities look within a class."""
    rng = np.random.default_rng(0)
    label, width = np.arange(120) % 5, 16
    centres, shift = rng.normal(size=(5, width)) * 3, rng.normal(size=width)
    source, target = (centres[label] + rng.normal(size=(120, width)) for _ in range(2))
    sets = {"rgb": source, "depth": target + 8 * shift / np.linalg.norm(shift)}

    def gap(drawn: dict[str, np.ndarray]) -> float:
        modality = np.repeat([0, 1], 24)
        both = [np.concatenate([x[label == c] for x in drawn.values()]) for c in range(5)]
        return float(np.mean([silhouette_score(x, modality) for x in both]))

    projected = maps.projected_map(sets, "rgb")
    assert 0.3 < gap(sets) < 0.6
    assert gap(maps.joint_map(sets)) > gap(sets) + 0.25
    assert gap(projected) < gap(sets) - 0.1


def test_set_to_fit_on_must_be_there_and_large_enough():
    with pytest.raises(LabError, match="no set 'nir' to fit on; the sets are rgb, depth"):
        maps.projected_map(blobs(), "nir")
    with pytest.raises(LabError, match="at least 5 points, and 4 were given"):
        maps.projected_map({"a": np.ones((4, 3)), "b": np.ones((9, 3))}, "a")


# how far a map is to be believed


@settings(max_examples=25)
@given(n=st.integers(3, 30), k=st.integers(1, 8), seed=st.integers(0, 99))
def test_kept_neighbours_against_sets(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 4)), rng.normal(size=(n, 2))
    k_used = min(k, n - 2)
    near = [[set(row[1 : k_used + 1]) for row in np.argsort(cdist(z, z), axis=1)] for z in (x, y)]
    truth = [len(a & b) / k_used for a, b in zip(*near, strict=True)]
    np.testing.assert_allclose(kept_neighbours(x, y, k), truth)
    np.testing.assert_allclose(kept_neighbours(y, x, k), truth)
    assert (kept_neighbours(x, 3 * x + 1, k) == 1).all()


def test_unrelated_pictures_keep_what_chance_keeps():
    x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    assert kept_neighbours(x, y, 10).mean() == pytest.approx(10 / 499, abs=0.01)


def test_stability_of_maps_that_differ_by_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sets = {"rgb": rng.normal(size=(40, 2)), "depth": rng.normal(size=(20, 2))}

    def shaken(sets, seed):
        rng = np.random.default_rng(seed)
        return {
            name: (x + (seed > 0) * rng.normal(size=x.shape)).astype(np.float32) for name, x in sets.items()
        }

    monkeypatch.setattr(maps, "joint_map", lambda sets, seed: shaken(sets, 0))
    same = stability(sets, (0, 1), 5)
    assert all((shares == 1).all() for shares in same.values())
    monkeypatch.setattr(maps, "joint_map", shaken)
    shaky = stability(sets, (0, 1, 2), 5)
    assert list(shaky) == ["between seeds", "map and features"]
    assert [shares.shape for shares in shaky.values()] == [(60,), (60,)]
    assert 5 / 59 < shaky["between seeds"].mean() < 1, "more than chance"
    features = np.concatenate(list(sets.values()))
    drawn = [np.concatenate(list(shaken(sets, seed).values())) for seed in (0, 1, 2)]
    by_hand = [kept_neighbours(features, points, 5) for points in drawn]
    np.testing.assert_allclose(shaky["map and features"], np.mean(by_hand, axis=0))


def test_stability_of_umap_tells_blobs_from_noise():
    noise = {"x": np.random.default_rng(0).normal(size=(80, 20))}
    clear = stability(blobs(), (0, 1), 10)
    vague = stability(noise, (0, 1), 10)
    assert clear["map and features"].mean() > vague["map and features"].mean() > 10 / 79


@pytest.mark.parametrize(
    ("seeds", "k", "words"),
    [((0,), 15, "at least two seeds"), ((0, 0), 15, "two seeds"), ((0, 1), 0, "k is 0")],
)
def test_stability_that_cannot_be_measured(seeds, k, words, monkeypatch):
    monkeypatch.setattr(maps, "joint_map", lambda sets, seed: maps.pca_map(sets))
    with pytest.raises(LabError, match=words):
        stability(blobs(), seeds, k)


def test_pictures_of_other_points_are_refused():
    with pytest.raises(LabError, match="9 and 8 were given"):
        kept_neighbours(np.ones((9, 2)), np.ones((8, 2)))


# where UMAP cannot be had


def test_too_few_points_for_umap_get_principal_components_and_a_sentence() -> None:
    points, why = maps.joint_map_or_pca({"a": np.eye(3), "b": np.eye(3)[:1]})
    assert {name: x.shape for name, x in points.items()} == {"a": (3, 2), "b": (1, 2)}
    assert why == "Principal components in place of UMAP: A map needs at least 5 points, and 4 were given."
    assert maps.joint_map_or_pca({"a": np.ones((1, 4))})[0]["a"].tolist() == [[0, 0]]
    with pytest.raises(LabError, match="NaN"):
        maps.joint_map_or_pca({"a": np.full((9, 3), np.nan)})


def test_a_umap_that_fails_in_any_way_does_not_lose_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    assert maps.joint_map_or_pca(blobs())[1] == ""
    monkeypatch.setattr(maps, "_umap", lambda *_: (_ for _ in ()).throw(RuntimeError("no\nlocator")))
    points, why = maps.joint_map_or_pca(blobs())
    np.testing.assert_array_equal(points["rgb"], maps.pca_map(blobs())["rgb"])
    assert why == "Principal components in place of UMAP: no locator"


@pytest.mark.slow
def test_umap_is_compiled_where_numba_finds_no_folder_to_write_to() -> None:
    """As in a container where neither site-packages nor HOME can be written."""
    source = (
        "import numpy as np, numba.core.caching as caching\n"
        "for kind in (caching.CacheImpl, *caching.CacheImpl.__subclasses__()):\n"
        "    kind._locator_classes = [caching.UserProvidedCacheLocator]\n"
        "from socketlab.figures import maps\n"
        "sets = {'a': np.random.default_rng(0).normal(size=(60, 8))}\n"
        "print(maps.joint_map_or_pca(sets)[1] or 'UMAP')"
    )
    bare = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=bare, check=True)
    assert ran.stdout.split() == ["UMAP"]
