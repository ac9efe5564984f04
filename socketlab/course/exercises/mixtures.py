"""Exercises of notebook 05, many sources."""

from __future__ import annotations

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question


def mixture(logits: Tensor, g: Tensor) -> Tensor:
    """Predictions of several networks together, each with its share.

    logits: (networks, batch, classes), g: (networks,) → (batch, classes) probabilities.
    """
    # begin
    w = g.sigmoid()
    a = w / w.sum()
    z = (a[:, None, None] * logits).sum(dim=0)
    return z.softmax(dim=1)
    # end


def share_gradient(g: Tensor, losses: Tensor) -> Tensor:
    """Gradient, with respect to g, of the networks' losses added up by their shares.

    g, losses: (networks,) → (networks,).
    """
    w = g.sigmoid()
    a = w / w.sum()
    # begin
    return a * (1 - w) * (losses - (a * losses).sum())
    # end


def _votes() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    four, one = (2 * torch.randn(n, 5, 3, generator=generator) for n in (4, 1))
    return [
        Case("four networks", (four, torch.tensor([1.0, -0.5, 2.0, 0.3]).requires_grad_())),
        Case("two networks", (four[:2], torch.tensor([-1.0, 1.5]).requires_grad_())),
        Case("one network", (one, torch.tensor([0.7]).requires_grad_())),
    ]


def _losses() -> list[Case]:
    return [
        Case("four networks", (torch.tensor([1.0, -0.5, 2.0, 0.3]), torch.tensor([0.9, 0.4, 1.7, 0.6]))),
        Case("two networks", (torch.tensor([0.2, -1.0]), torch.tensor([0.5, 2.0]))),
        Case("one network", (torch.tensor([0.7]), torch.tensor([1.3]))),
    ]


def _shares(g: Tensor) -> Tensor:
    return g.sigmoid() / g.sigmoid().sum()


def _mixed(weights: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("n,nbk->bk", weights, x)


EXERCISES = (
    Exercise(
        id="05-mixture",
        title="four networks, one prediction",
        task=(
            "Each source network $k$ has a number $g_k$ that learns. Its share of the mixture is "
            r"$a_k = w_k / \sum_j w_j$ with $w_k = \operatorname{sigmoid}(g_k)$. Write the mixture's "
            r"probabilities, $p = \operatorname{softmax}\big(\sum_k a_k z_k\big)$, where $z_k$ are the "
            "logits of network $k$."
        ),
        answer=mixture,
        cases=_votes,
        mistakes=(
            Mistake(
                "mean of the probabilities",
                lambda z, g: _mixed(_shares(g), z.softmax(2)),
                "You took the softmax of each network and averaged then. That is a fair committee too; here "
                "the *logits* are mixed, so that a single network can exclude a class.",
            ),
            Mistake(
                "shares that do not sum to 1",
                lambda z, g: _mixed(g.sigmoid(), z).softmax(1),
                "You mixed with w, which does not sum to 1: logits would grow with every further network, "
                "and predictions look more certain than any of them is. Divide by the sum.",
            ),
            Mistake(
                "shares by softmax",
                lambda z, g: _mixed(g.softmax(0), z).softmax(1),
                "You took the softmax of g for shares. It sums to 1 as well, but one network whose g grows "
                "can drown all others. A sigmoid lets no w grow beyond 1 before the sum is taken.",
            ),
            Mistake(
                "equal shares",
                lambda z, g: _mixed(torch.full_like(g, 1 / len(g)), z).softmax(1),
                "You gave every network the same share, whatever g says: nothing could be learned about "
                "who can be trusted.",
            ),
            Mistake(
                "softmax over the images",
                lambda z, g: _mixed(_shares(g), z).softmax(0),
                "You took the softmax over the batch. The mixture has the shape (batch, classes), and each "
                "row sums to 1: `dim=1`.",
            ),
            Mistake(
                "no softmax at the end",
                lambda z, g: _mixed(_shares(g), z),
                "You have the mixture's logits. Probabilities are wanted: one softmax more.",
            ),
        ),
        hints=(
            "Three steps: shares from g, the weighted sum of the logits over the networks, a softmax.",
            "`a[:, None, None] * logits` multiplies each network's logits by its share; sum over `dim=0`, "
            "then `.softmax(dim=1)`.",
        ),
        because=(
            "Right: the shares sum to 1, so that logits keep their scale, and with one network the mixture "
            "is that network, whatever g is."
        ),
        minutes=6,
        difficulty=2,
        importance=3,
        gradient=True,
    ),
    Exercise(
        id="05-weight-gradient",
        title="what moves a share",
        task=(
            r"A term that is computed for each network, $\ell_k$, enters the loss by its shares, "
            r"$L = \sum_k a_k \ell_k$. Write the gradient $\partial L / \partial g_k$ without autograd, "
            r"from $\partial a_j / \partial w_k = (\delta_{jk} - a_j) / \sum_i w_i$ and "
            r"$\partial w_k / \partial g_k = w_k (1 - w_k)$. "
            "`w` and `a` are given; the losses $\\ell_k$ count as constants."
        ),
        answer=share_gradient,
        cases=_losses,
        mistakes=(
            Mistake(
                "the losses themselves",
                lambda g, losses: losses.clone(),
                "You have the derivative with respect to a. The shares are tied together, for they sum to 1: "
                "go on from a to w, and from w to g.",
            ),
            Mistake(
                "share times loss",
                lambda g, losses: _shares(g) * losses,
                "You have the summands of L. A network's share can only grow at the others' expense: what "
                "counts is whether its loss is above or below the mean.",
            ),
            Mistake(
                "forgets the mean",
                lambda g, losses: _shares(g) * (1 - g.sigmoid()) * losses,
                "You treated the sum of w as a constant. When w grows the sum does too, and that takes "
                "the mean L away from each loss.",
            ),
            Mistake(
                "gradient of a softmax",
                lambda g, losses: _shares(g) * (losses - (_shares(g) * losses).sum()),
                "You have the gradient for shares by softmax. Here w is a sigmoid of g: one factor more, "
                "1 − w.",
            ),
            Mistake(
                "shares that do not sum to 1",
                lambda g, losses: g.sigmoid() * (1 - g.sigmoid()) * losses,
                "You have the gradient of the sum of w times loss, with shares that are not divided by "
                "their sum. It is never negative where losses are not, so that training would lower every "
                "w to 0 and switch the term off.",
            ),
            Mistake(
                "sign",
                lambda g, losses: _shares(g) * (1 - g.sigmoid()) * ((_shares(g) * losses).sum() - losses),
                "Your sign is turned: this is the way that g goes, *against* the gradient. The gradient of "
                "a network with a loss above the mean is positive.",
            ),
        ),
        hints=(
            "Chain rule: the derivative with respect to w_k is (ℓ_k − L) / Σ w. Then from w to g.",
            "w / Σ w is the share again, so that three factors remain: `a`, `1 - w`, and the loss less the "
            "mean `(a * losses).sum()`.",
        ),
        because=(
            "Right: a share falls where a network's loss is above the mean, and with one network the "
            "gradient is 0, as it must be. What the loss *calls* bad need not be bad."
        ),
        minutes=9,
        difficulty=3,
    ),
)

QUESTIONS = (
    Question(
        "05-one-source",
        "There is one source network, and the distance of statistics is multiplied by its share a = w / Σ w. "
        "What is the gradient of this term with respect to g?",
        (
            Option(
                "Exactly 0.",
                "With one network a is 1, whatever g is. The published code multiplies by w itself: there "
                "the gradient lowers w at every step, nothing opposes it, and the term switches itself off.",
                right=True,
            ),
            Option(
                "Positive, so that g falls.",
                "That holds for a factor w that is not divided by the sum, as in the published code.",
            ),
            Option(
                "Positive or negative, as the distance happens to be.",
                "Only with several networks: then it matters whose distance is above the mean.",
            ),
            Option(
                "It cannot be said without the images.",
                "The distance depends on the images, but its factor does not: it is 1 for any g.",
            ),
        ),
    ),
    Question(
        "05-bad-source",
        "One of four source networks is wrong about nearly every target image, and very certain of it. What "
        "can information maximisation do to its share?",
        (
            Option(
                "Raise it.",
                "The loss counts certainty and evenness, and sees no label: a network that is certain of "
                "many different mistakes lowers it. Learned shares tell what the loss likes, not whom to "
                "trust.",
                right=True,
            ),
            Option(
                "Only lower it, since the network is wrong.",
                "Nothing in the loss knows that it is wrong: no target label is there.",
            ),
            Option(
                "Nothing, because shares are fixed before training.",
                "They learn along with the networks; g is a parameter like any other.",
            ),
            Option(
                "Set it to 0 at once.",
                "A sigmoid is never 0, and steps are small. Besides, the loss need not want to lower it.",
            ),
        ),
    ),
)
