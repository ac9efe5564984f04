"""Features of the pairs from the frozen networks: cached or computed anew, the same; views in turn."""

import pytest
import torch
from worlds import patterned, trained_source

from socketlab.images.paired_images import cut_views, endless_rows
from socketlab.method import pair_features as teaching
from socketlab.method.pair_features import PairFeatures
from socketlab.method.recipe import Recipe

RECIPE = Recipe(batch_size=8, pair_views=2, precision="float32")


@pytest.fixture(scope="module")
def pairs():
    return patterned(20, 2).unlabelled()


def drawn(sources, pairs, recipe=RECIPE, seed=0, numbers=range(8)):
    teacher = PairFeatures(sources, pairs, recipe, seed)
    return [teacher.batch_of(number, "depth") for number in numbers]


def test_cached_features_are_those_of_the_very_views_that_the_target_gets(pairs):
    """Recomputed by hand from rows, views and the source network, over several passes and their seams."""
    source = trained_source()
    teacher = PairFeatures([source], pairs, RECIPE, seed=3)
    for number in range(8):
        rows = endless_rows(20, 8, number, seed=3)
        passes = (number * 8 + torch.arange(8)) // 20
        images, [(maps, features)] = teacher.batch_of(number, "depth")
        # a seam may reorder a batch by pass: bring the expectation in that order
        order = passes.argsort(stable=True)
        for i, (row, one) in enumerate(zip(rows[order], passes[order] % 2, strict=True)):
            view = teacher._views_of(int(one)).take(row[None])
            cut = cut_views(pairs, row[None], view)
            assert torch.equal(images[i : i + 1].view(torch.int16), cut["depth"].view(torch.int16))
            with torch.no_grad():
                expected = source.network.map_and_features(source.normalisation.encode(cut["rgb"]))
            torch.testing.assert_close(maps[i : i + 1], expected[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(features[i : i + 1], expected[1], rtol=1e-4, atol=1e-4)


def test_without_room_for_a_cache_the_numbers_are_the_same(pairs, monkeypatch):
    cached = drawn([trained_source()], pairs)
    monkeypatch.setattr(teaching, "CACHE_BYTES", 0)
    anew = drawn([trained_source()], pairs)
    for (images, [(maps, features)]), (others, [(other_maps, other_features)]) in zip(
        cached, anew, strict=True
    ):
        assert torch.equal(images.view(torch.int16), others.view(torch.int16))
        torch.testing.assert_close(maps, other_maps, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(features, other_features, rtol=1e-4, atol=1e-4)


def test_views_come_round_or_never(pairs):
    """With two views pass 2 shows what pass 0 showed; with 0 every pass is new."""
    for views, again in ((2, True), (0, False)):
        teacher = PairFeatures([trained_source()], pairs, RECIPE.replace(pair_views=views), seed=0)
        shown = {view for number in range(10) for _, view in teacher._parts(number)}
        assert shown == ({0, 1} if again else {0, 1, 2, 3})
        assert not torch.equal(teacher._views_of(0).top, teacher._views_of(1).top)


def test_each_view_is_computed_once(pairs):
    source = trained_source()
    seen = []
    handle = source.network.trunk[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    try:
        drawn([source], pairs, numbers=range(20))  # eight passes
    finally:
        handle.remove()
    assert sum(seen) == 2 * 20 + 1  # two views of 20 pairs, and one picture to ask how large a map is


def test_maps_are_left_out_where_the_recipe_has_no_use_for_them(pairs):
    [(_, [(maps, features)])] = drawn([trained_source()], pairs, RECIPE.replace(ti_map=0.0), numbers=[0])
    assert maps is None
    assert features.shape == (8, 128)


def test_draws_depend_on_nothing_but_seed_and_number(pairs):
    late = drawn([trained_source()], pairs, numbers=[7])[0]
    in_order = drawn([trained_source()], pairs)[7]
    assert torch.equal(late[0].view(torch.int16), in_order[0].view(torch.int16))
    assert torch.equal(late[1][0][1], in_order[1][0][1])
