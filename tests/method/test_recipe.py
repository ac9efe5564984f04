"""Recipes: ranges, names and types are checked where a recipe is made."""

import dataclasses

import pytest

from socketlab.errors import LabError
from socketlab.method.recipe import METHODS, Recipe, knobs


@pytest.mark.parametrize(("name", "about"), knobs().items())
def test_every_knob_has_words_and_a_range_that_holds_its_default(name, about):
    assert about.label
    assert about.help
    default = getattr(Recipe(), name)
    if about.choices:
        for choice in about.choices:
            Recipe().replace(**{name: choice})
        with pytest.raises(LabError, match="choose one of"):
            Recipe().replace(**{name: "something else"})
    else:
        assert about.low <= default <= about.high
        assert getattr(Recipe().replace(**{name: about.low}), name) == about.low
        assert getattr(Recipe().replace(**{name: about.high}), name) == about.high
        for wrong in (about.low - 1, about.high + 1, float("nan")):
            with pytest.raises(LabError, match=name):
                Recipe().replace(**{name: wrong})


@pytest.mark.parametrize("wrong", ["12", None, True, 1.5])
def test_whole_numbers_are_whole(wrong):
    with pytest.raises(LabError, match="epochs"):
        Recipe(epochs=wrong)


def test_unknown_names_are_refused():
    with pytest.raises(LabError, match="no lambda_tii"):
        Recipe().replace(lambda_tii=1.0)
    with pytest.raises(LabError, match="source-only, batch, adabn, tent, shot-im, shot, aad, socket"):
        Recipe.for_method("socks")


def test_recipes_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3


def test_published_recipe_has_the_published_weights():
    paper = Recipe.paper()
    assert (paper.lambda_pl, paper.lambda_im, paper.lambda_bn, paper.lambda_ti) == (0.3, 1.0, 0.5, 0.5)
    assert (paper.trunk_lr, paper.bottleneck_lr, paper.epochs, paper.batch_size) == (1e-3, 1e-2, 15, 32)


def test_every_method_has_a_recipe():
    assert Recipe.for_method("shot").lambda_ti == 0
    assert Recipe.for_method("socket").lambda_ti > 0
    for method in METHODS:
        assert isinstance(Recipe.for_method(method), Recipe)
