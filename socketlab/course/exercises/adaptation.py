"""Exercises of notebook 04, full adaptation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def information(logits: Tensor) -> Tensor:
    """Information maximisation: certain of each image, even over the batch.

    logits: (batch, classes) → a single number, in nats.
    """
    # begin
    p = logits.softmax(dim=1)
    mean_p = p.mean(dim=0)
    of_each = -(p * p.clamp_min(1e-12).log()).sum(dim=1)
    of_mean = -(mean_p * mean_p.clamp_min(1e-12).log()).sum()
    return of_each.mean() - of_mean
    # end


def soft_centroids(u: Tensor, q: Tensor) -> Tensor:
    """The middle of each class, by the network's own soft predictions.

    u: (images, features), rows of length 1; q: (images, classes), rows that sum to 1 → (classes, features).
    """
    # begin
    return (q.T @ u) / q.sum(dim=0)[:, None]
    # end


def nearest_centre(u: Tensor, centres: Tensor, used: Tensor) -> Tensor:
    """For each image the class, among those in use, whose centre has the highest cosine with it.

    u: (images, features), rows of length 1; centres: (classes, features), of any length;
    used: (classes,) bool → (images,) whole numbers.
    """
    # begin
    cosine = u @ F.normalize(centres, dim=1).T
    return cosine.masked_fill(~used, -torch.inf).argmax(dim=1)
    # end


def gap_closed(source: Tensor, method: Tensor, oracle: Tensor) -> Tensor:
    """Share of the way from source only to the oracle that a method has gone, camera by camera.

    source, method, oracle: (cameras,) accuracies, oracle above source → (cameras,).
    """
    # begin
    return (method - source) / (oracle - source)
    # end


def _batches() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    many = 3 * torch.randn(12, 4, generator=generator)
    few = 1 + torch.randn(5, 3, generator=generator)
    sure = 20 * torch.eye(4)[[0, 1, 1, 3, 2]]
    return [
        Case("a batch of twelve images and four classes", (many.requires_grad_(),)),
        Case("a batch of five images and three classes", (few.requires_grad_(),)),
        Case("a batch of five predictions that are certain", (sure.requires_grad_(),)),
    ]


def _clouds() -> list[Case]:
    cases = []
    for images, wide, classes, seed in ((12, 5, 3, 0), (9, 4, 2, 1)):
        generator = torch.Generator().manual_seed(seed)
        u = F.normalize(torch.randn(images, wide, generator=generator), dim=1)
        logits = torch.randn(images, classes, generator=generator)
        logits[torch.arange(images), torch.arange(images) % classes] += 1.5  # no class is empty
        cases.append(Case(f"{images} images of {classes} classes", (u, logits.softmax(dim=1))))
    return cases


def _centres() -> list[Case]:
    generator = torch.Generator().manual_seed(3)
    u = F.normalize(torch.randn(24, 3, generator=generator), dim=1)
    lengths = torch.tensor([0.2, 0.9, 0.5, 0.6])[:, None]
    centres = lengths * F.normalize(torch.randn(4, 3, generator=generator), dim=1)
    everything, without = torch.ones(4, dtype=torch.bool), torch.tensor([True, True, False, True])
    return [
        Case("24 images and four classes, all in use", (u, centres, everything)),
        Case("24 images and four classes, one of which nobody uses", (u, centres, without)),
    ]


def _accuracies() -> list[Case]:
    source = torch.tensor([0.19, 0.24, 0.50, 0.31])
    method = torch.tensor([0.77, 0.20, 0.96, 0.58])
    oracle = torch.tensor([0.94, 0.90, 0.95, 0.97])
    return [
        Case("four cameras, with harm on one and luck on another", (source, method, oracle)),
        Case("one camera", (source[:1], method[:1], oracle[:1])),
    ]


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(dim=-1)


def _hard(u: Tensor, q: Tensor) -> Tensor:
    chosen = F.one_hot(q.argmax(dim=1), q.shape[1]).to(u.dtype)
    return (chosen.T @ u) / chosen.sum(dim=0)[:, None]


EXERCISES = (
    Exercise(
        id="04-information",
        title="certain, but not always of the same",
        task=(
            r"Write information maximisation, $L_{IM} = \operatorname{mean}_i H(p_i) - "
            r"H(\operatorname{mean}_i\, p_i)$, from a batch of logits. $p_i$ is the softmax of image $i$'s "
            r"logits, $H(p) = -\sum_c p_c \log p_c$ with the natural logarithm, and $0 \log 0$ counts as 0."
        ),
        answer=information,
        cases=_batches,
        mistakes=(
            Mistake(
                "sign of the diversity",
                lambda z: _entropy(z.softmax(1)).mean() + _entropy(z.softmax(1).mean(0)),
                "You added the entropy of the mean. As a loss that presses the batch into one class; "
                "it has to be subtracted, for the batch shall be spread.",
            ),
            Mistake(
                "without diversity",
                lambda z: _entropy(z.softmax(1)).mean(),
                "You have the mean entropy of each prediction, and no second term: a network that says "
                "the same class of every image, and is certain of it, would be perfect.",
            ),
            Mistake(
                "diversity alone",
                lambda z: -_entropy(z.softmax(1).mean(0)),
                "You have the entropy of the mean only: a network that has no idea of any image, and says "
                "so, would be perfect.",
            ),
            Mistake(
                "mean of the logits",
                lambda z: _entropy(z.softmax(1)).mean() - _entropy(z.mean(0).softmax(0)),
                "You averaged the logits and took their softmax then. How even the batch is, is a matter of "
                "its probabilities: softmax first, then the mean.",
            ),
            Mistake(
                "sum over the batch",
                lambda z: _entropy(z.softmax(1)).sum() - _entropy(z.softmax(1).mean(0)),
                "You summed the entropies of the images, where their mean is wanted: in a large batch "
                "the second term would count for nothing.",
            ),
            Mistake(
                "softmax over the batch",
                lambda z: _entropy(z.softmax(0)).mean() - _entropy(z.softmax(0).mean(0)),
                "You took the softmax over the images. Each *row* of logits is one image, whose "
                "probabilities sum to 1: `dim=1`.",
            ),
        ),
        hints=(
            "Two entropies: of every row of p, then averaged; and of the average row.",
            "`p = logits.softmax(dim=1)`; the entropy of each row is "
            "`-(p * p.clamp_min(1e-12).log()).sum(dim=1)`; the second one is the same of `p.mean(dim=0)`.",
        ),
        because=(
            "Right: the first term asks for a clear answer to each image, the second forbids that it is "
            "always the same. Neither knows which answer is true."
        ),
        minutes=8,
        difficulty=2,
        importance=3,
        gradient=True,
    ),
    Exercise(
        id="04-centroids",
        title="soft centroids",
        task=(
            "Pseudo-labels begin with a centre for each class, the mean of the unit vectors $u(x)$ of all "
            "images, weighted by how much the network takes each for that class: "
            r"$c_k = \sum_x q_k(x)\, u(x) \,/\, \sum_x q_k(x)$."
        ),
        answer=soft_centroids,
        cases=_clouds,
        mistakes=(
            Mistake(
                "hard centroids",
                _hard,
                "You counted each image for its first choice only. That is the *second* round; at first "
                "the doubts of the network are worth keeping, for most of its first choices may be wrong.",
            ),
            Mistake(
                "not divided by the weight",
                lambda u, q: q.T @ u,
                "You have the weighted sum. Divide each class by its own weight, the sum of its column of "
                "`q`; the rows sum to 1 already, and dividing by those sums does nothing.",
            ),
            Mistake(
                "divided by the number of images",
                lambda u, q: q.T @ u / len(u),
                "You divided by the number of images: the centre of a class that is predicted rarely would "
                "lie near the origin. Divide by the class's own weight.",
            ),
            Mistake(
                "scaled to length 1",
                lambda u, q: F.normalize(q.T @ u, dim=1),
                "You have the right directions, scaled to length 1. That is done when cosines are taken; "
                "the mean itself is shorter than 1, and the more so the more its class is scattered.",
            ),
            Mistake(
                "the surest image",
                lambda u, q: u[q.argmax(dim=0)],
                "You took the one image that the network is surest of. A centre is a mean over all images: "
                "one image may be an odd one.",
            ),
        ),
        hints=(
            "A sum over images of weight times vector is a product of matrices.",
            "`q.T @ u` has the shape (classes, features); divide by `q.sum(dim=0)` as a column, `[:, None]`.",
        ),
        because=(
            "Right: every image has a say in every centre, as much as the network believes in it. So a "
            "centre can lie where the class is, although most single guesses are wrong."
        ),
        minutes=6,
        difficulty=2,
    ),
    Exercise(
        id="04-pseudo-labels",
        title="the nearest centre",
        task=(
            "Give each image the class whose centre is nearest *by cosine*. Classes that nobody is predicted "
            "as are not in use (`used` is False there), and no image may get them."
        ),
        answer=nearest_centre,
        cases=_centres,
        mistakes=(
            Mistake(
                "product without length",
                lambda u, centres, used: (u @ centres.T).masked_fill(~used, -torch.inf).argmax(dim=1),
                "You compared plain products. The centres differ in length, and a long one wins images "
                "that point elsewhere: scale the centres to length 1 first.",
            ),
            Mistake(
                "Euclidean distance",
                lambda u, centres, used: torch.cdist(u, centres).masked_fill(~used, torch.inf).argmin(dim=1),
                "You took the Euclidean distance to centres that are not of length 1: it prefers centres of "
                "one length to others. The cosine asks for the direction alone.",
            ),
            Mistake(
                "classes not in use",
                lambda u, centres, used: (u @ F.normalize(centres, dim=1).T).argmax(dim=1),
                "You gave away classes that are not in use. Their centres come from doubts alone, and "
                "images that land there are lost.",
            ),
            Mistake(
                "masked with 0",
                lambda u, centres, used: (
                    (u @ F.normalize(centres, dim=1).T).masked_fill(~used, 0.0).argmax(dim=1)
                ),
                "You set the cosine of unused classes to 0. A cosine can be negative, and for an image that "
                "points away from all centres in use 0 is the highest: take minus infinity.",
            ),
        ),
        hints=(
            "The rows of `u` have length 1. Once those of the centres have too, the cosine is a product.",
            "`cosine = u @ F.normalize(centres, dim=1).T`, then "
            "`.masked_fill(~used, -torch.inf).argmax(dim=1)`; `F` is `torch.nn.functional`.",
        ),
        because=(
            "Right. With the labels found, centres are computed once more, hard this time, and all images "
            "are assigned again: those are the pseudo-labels of SHOT."
        ),
        minutes=6,
        difficulty=2,
    ),
    Exercise(
        id="04-gap-closed",
        title="how much of the gap is closed",
        task=(
            "An accuracy alone says little: cameras differ in how hard they are. Write the share of the way "
            "from *source only* to the *oracle* that a method has gone: 0 is where it started, 1 is where a "
            "network with labels gets."
        ),
        answer=gap_closed,
        cases=_accuracies,
        mistakes=(
            Mistake(
                "points gained",
                lambda source, method, oracle: method - source,
                "You have the gain in points. Ten points are much where the gap is twenty wide, and little "
                "where it is seventy: divide by the gap.",
            ),
            Mistake(
                "share of the oracle",
                lambda source, method, oracle: method / oracle,
                "You divided by the oracle's accuracy. So a method that does nothing gets a good part of "
                "the way for free: count from the source's accuracy.",
            ),
            Mistake(
                "gain relative to the source",
                lambda source, method, oracle: (method - source) / source,
                "You divided the gain by where it began: the poorer the source network, the better the "
                "method would look. Divide by the gap, oracle less source.",
            ),
            Mistake(
                "share of the errors",
                lambda source, method, oracle: (method - source) / (1 - source),
                "You took perfection for the end of the way. Some depth images cannot be told apart by "
                "anybody; the oracle is what labels would bring.",
            ),
            Mistake(
                "what is left",
                lambda source, method, oracle: (oracle - method) / (oracle - source),
                "You have the share of the gap that is still open: 1 where nothing was gained.",
            ),
            Mistake(
                "cut to 0 and 1",
                lambda source, method, oracle: ((method - source) / (oracle - source)).clamp(0, 1),
                "You cut the share to 0 and 1. A method that does harm would pass for one that does nothing.",
            ),
        ),
        hints=(
            "Both numbers are counted from the source's accuracy: how far the method came, how far it is.",
            "`method - source` is what was gained, `oracle - source` what there was to gain.",
        ),
        because=(
            "Right: below 0 where a method does harm, above 1 where it surpasses the oracle; and it can be "
            "compared between cameras. Give the three accuracies beside it."
        ),
        minutes=4,
        difficulty=1,
        importance=3,
    ),
)

QUESTIONS = (
    Question(
        "04-im-minimum",
        "For which batch is the loss of information maximisation lowest?",
        (
            Option(
                "Every prediction is certain, and all classes are predicted equally often.",
                "The first entropy is 0 then and the second as large as it can be: −log K in all. "
                "Whether a single prediction is true plays no part.",
                right=True,
            ),
            Option(
                "Every prediction is certain, and of the same class.",
                "Each entropy is 0, and so is that of their mean: the loss is 0. The second term is there "
                "to forbid just this.",
            ),
            Option(
                "Every prediction is even over all classes.",
                "Both entropies are log K, and the loss is 0: no idea is as bad as always the same.",
            ),
            Option(
                "Every prediction is true.",
                "The loss sees no label. True predictions are lowest only if they are certain and the "
                "classes equally frequent, and false ones of that kind are just as low.",
            ),
        ),
    ),
    Question(
        "04-no-pairs",
        "Information maximisation and pseudo-labels sort the images into neat piles. Why can they not tell "
        "which pile is which class?",
        (
            Option(
                "If two piles exchange their names, both losses stay exactly what they were.",
                "They see the network's own predictions and nothing else. Which name a pile gets is decided "
                "by the start, and that is why the pairs come first: they tie depth to features that the "
                "head knows.",
                right=True,
            ),
            Option(
                "There are too few target images.",
                "More images make the piles clearer. They bring no name, for none of them has one.",
            ),
            Option(
                "The head is frozen.",
                "The frozen head is the one thing that still knows names. What is missing is features that "
                "it can read.",
            ),
            Option(
                "Their weights in the loss are too small.",
                "A larger weight makes the network certain sooner, of true and false names alike.",
            ),
        ),
    ),
    Question(
        "04-last-epoch",
        "The plan was to train for 15 epochs. Held-out accuracy is highest after 12 and lower after 15. "
        "Which do you report?",
        (
            Option(
                "That of epoch 12: it is the best network.",
                "You know that from labels which nobody has who needs this method. Chosen so, the number "
                "is an oracle's, and better than anyone will get.",
            ),
            Option(
                "That of epoch 15.",
                "The rule stood before the run and needs no label. Another rule that looks at no label is "
                "as good, if it was fixed beforehand and is named beside the number.",
                right=True,
            ),
            Option(
                "The mean of all epochs.",
                "That is the accuracy of no network that you could hand to anybody.",
            ),
            Option(
                "That of epoch 12, if it was chosen on the images that were adapted to.",
                "Those labels are the target's too: a method without target labels has not seen them either.",
            ),
        ),
    ),
)
