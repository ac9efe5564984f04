"""Exercises of notebook 06, near-infrared."""

from __future__ import annotations

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def encode_nir(images: Tensor, target: Tensor) -> Tensor:
    """From what a camera stores to what a network reads, with the target's own mean and deviation.

    images: (batch, 1, height, width) uint8, to be encoded; target: (images, 1, height, width) uint8, all
    unlabelled images of the target → (batch, 3, height, width).
    """
    x, known = images / 255, target / 255  # white is 1
    # begin
    encoded = (x - known.mean()) / known.std(correction=0)
    return encoded.expand(-1, 3, -1, -1)
    # end


def class_mean(counts: Tensor) -> Tensor:
    """Mean over the classes of the share that is named right; a class without images is left out.

    counts: (classes, classes) whole numbers, row i: images of class i by the class they were taken for
    → a single number.
    """
    # begin
    images = counts.sum(dim=1)
    there = images > 0
    return (counts.diagonal()[there] / images[there]).mean()
    # end


def _infrared() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    light = torch.linspace(40, 200, 9)[:, None, None, None]
    shade = torch.linspace(-25, 25, 5)
    pictures = light + shade + 12 * torch.randn(9, 1, 4, 5, generator=generator)
    target = pictures.clamp(0, 255).to(torch.uint8)
    return [
        Case("two dark pictures", (target[:2], target)),
        Case("three pictures that are not of the set", (255 - target[4:7] // 2, target[2:])),
    ]


def _tables() -> list[Case]:
    uneven = torch.tensor([[90, 8, 2], [6, 3, 1], [1, 2, 2]])
    missing = torch.tensor([[5, 1, 4, 0], [0, 0, 0, 0], [2, 3, 14, 1], [0, 1, 0, 3]])
    return [
        Case("three classes, of 100, 10 and 5 images", (uneven,)),
        Case("four classes, one of which has no image", (missing,)),
    ]


_COLOUR_MEAN, _COLOUR_STD = (
    torch.tensor(numbers)[:, None, None] for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def _scaled(images: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    return ((images / 255 - mean) / std).expand(-1, 3, -1, -1)


EXERCISES = (
    Exercise(
        id="06-normalise-channels",
        title="one channel for a network of three",
        task=(
            "A network for colour wants three channels of mean 0 and deviation 1; near-infrared has one. "
            "Subtract the mean and divide by the standard deviation of *all target images* (one number each, "
            "over all pixels of the set, which need no label; the deviation divides by n, not n − 1), and "
            "give the channel three times."
        ),
        answer=encode_nir,
        cases=_infrared,
        mistakes=(
            Mistake(
                "numbers of colour",
                lambda images, target: _scaled(images, _COLOUR_MEAN, _COLOUR_STD),
                "You took the mean and deviation that go with ImageNet's colours. Normalisation belongs to a "
                "network *and* a modality: with the wrong one every input is shifted and stretched.",
            ),
            Mistake(
                "the batch's own numbers",
                lambda images, target: _scaled(
                    images, (images / 255).mean(), (images / 255).std(correction=0)
                ),
                "You measured the batch itself. Then what a picture becomes depends on who is in the batch "
                "with it; measure on `target`, once for all.",
            ),
            Mistake(
                "each picture by itself",
                lambda images, target: _scaled(
                    images,
                    (images / 255).mean((1, 2, 3), keepdim=True),
                    (images / 255).std((1, 2, 3), keepdim=True, correction=0),
                ),
                "You normalised each picture by itself: a dark room and a bright one come out alike, and "
                "their light may have been what told them apart.",
            ),
            Mistake(
                "place by place",
                lambda images, target: _scaled(
                    images, (target / 255).mean(0), (target / 255).std(0, correction=0)
                ),
                "You have a mean and a deviation for each pixel's place. A network looks for the same "
                "things everywhere: one number for the whole set.",
            ),
            Mistake(
                "divided by the variance",
                lambda images, target: _scaled(
                    images, (target / 255).mean(), (target / 255).var(correction=0)
                ),
                "You divided by the variance, in squared units; the deviation is its root.",
            ),
            Mistake(
                "n less one",
                lambda images, target: _scaled(images, (target / 255).mean(), (target / 255).std()),
                "Nearly: torch's `std` divides by n − 1 unless told otherwise. The kit divides by n, as a "
                "batch-norm layer does on a batch: `std(correction=0)`.",
            ),
            Mistake(
                "not divided",
                lambda images, target: _scaled(images, (target / 255).mean(), 1.0),
                "You took the mean away and left the deviation: the contrast is not yet what the network "
                "was trained on.",
            ),
        ),
        hints=(
            "The mean and deviation of `known` are two numbers; `x` is what they are applied to.",
            "`(x - known.mean()) / known.std(correction=0)`, and three channels by `.expand(-1, 3, -1, -1)`, "
            "which copies nothing.",
        ),
        because=(
            "Right: brightness and contrast of the sensor are gone, those of the rooms remain. Where the gap "
            "is small, this and the same in every batch-norm layer are much of the way."
        ),
        minutes=6,
        difficulty=1,
        importance=3,
    ),
    Exercise(
        id="06-class-mean",
        title="class-mean accuracy",
        task=(
            "Real sets have many pictures of one class and few of another. Write the class-mean accuracy "
            "from a confusion matrix: for each class the share of *its* images that are named right, and of "
            "these shares the mean. A class of which the set has no image is left out."
        ),
        answer=class_mean,
        cases=_tables,
        mistakes=(
            Mistake(
                "overall accuracy",
                lambda counts: counts.trace() / counts.sum(),
                "You have the share of all images. In an uneven set the largest class decides it: a network "
                "that always says that class would look good.",
            ),
            Mistake(
                "columns for rows",
                lambda counts: (counts.diagonal() / counts.sum(0).clamp(min=1))[counts.sum(0) > 0].mean(),
                "You divided by the columns, how often each class was *predicted*: that is the precision. "
                "The images of class i stand in row i.",
            ),
            Mistake(
                "missing classes count as 0",
                lambda counts: (counts.diagonal() / counts.sum(1).clamp(min=1)).mean(),
                "You let a class without images count as 0: the number would fall for a class that nobody "
                "was asked about.",
            ),
            Mistake(
                "a count, no share",
                lambda counts: counts.diagonal()[counts.sum(1) > 0].float().mean(),
                "You have the mean count of right answers. Divide each by the number of images of its class.",
            ),
            Mistake(
                "divided by all images",
                lambda counts: (counts.diagonal() / counts.sum())[counts.sum(1) > 0].mean(),
                "You divided every class by the number of *all* images. Each class has a number of its own, "
                "the sum of its row.",
            ),
        ),
        hints=(
            "Right answers stand on the diagonal; the images of each class are the sum of its row.",
            "`counts.diagonal() / counts.sum(dim=1)`, for the rows with a sum above 0 only, then the mean.",
        ),
        because=(
            "Right: every class counts the same, and a network that always says the same class gets 1 / K. "
            "Say which of the two accuracies a table holds."
        ),
        minutes=5,
        difficulty=1,
    ),
)

QUESTIONS = (
    Question(
        "06-direction",
        "A network was trained on near-infrared, with the one channel given to its three inputs alike. Now "
        "it reads colour. What do its first filters know of differences between red, green and blue?",
        (
            Option(
                "Nothing: such differences are what chance left there.",
                "The three inputs were equal, so the three parts of a filter had equal gradients, and only "
                "their sum was ever trained. The other way round, a network for colour gets a grey picture, "
                "which is not new to it. So the two directions need not be equally hard.",
                right=True,
            ),
            Option(
                "To ignore them: the three parts of each filter have become equal.",
                "Equal gradients move the parts alike. They began different, at random, and what lies "
                "between them is not trained away.",
            ),
            Option(
                "As much as those of a network for colour, for edges are edges.",
                "Edges in brightness, yes. Where two colours are equally bright, a filter must weigh one "
                "channel against another, and this was never asked of it.",
            ),
        ),
    ),
    Question(
        "06-small-gap",
        "Normalising anew with the target's own statistics, in the input and in every batch-norm layer, "
        "needs no training. When can it be enough?",
        (
            Option(
                "When the modalities differ by brightness and contrast of each channel, and hardly else.",
                "A shift and a scale for each channel is all that it can undo. Where other things are to be "
                "seen, as in depth, features must be learned.",
                right=True,
            ),
            Option(
                "When both have the same number of channels.",
                "Depth that is copied three times has three as well, and remains depth.",
            ),
            Option(
                "When the two clouds of features lie on each other.",
                "Clouds can agree with every room in the wrong place. Ask whether partners find each other.",
            ),
            Option(
                "Never: a network has to be trained on its modality.",
                "From colour to near-infrared it goes a good part of the way; the table of results has it.",
            ),
        ),
    ),
)
