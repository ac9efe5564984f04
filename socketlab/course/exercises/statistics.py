"""Exercises of notebook 02, batch-norm statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from socketlab.course.exercises import Case, Exercise, Mistake, Option, Question

PLACES = (0, 2, 3)
"""All but the channels of (batch, channels, height, width)."""


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and *unbiased* variance of each channel, as a batch-norm layer takes them into its memory.

    x: (batch, channels, height, width) → (channels,) and (channels,).
    """
    # begin
    return x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=1)
    # end


def update_memory(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """A batch-norm layer's memory after it has seen one more batch in training.

    x: (batch, channels, height, width), running_mean, running_var: (channels,), before the batch,
    momentum: the batch's share, in [0, 1] → both after the batch, (channels,) each.
    """
    # begin
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=1)
    new_mean = (1 - momentum) * running_mean + momentum * mean
    new_var = (1 - momentum) * running_var + momentum * var
    return new_mean, new_var
    # end


def normalise(
    x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """What a batch-norm layer gives in evaluation.

    x: (batch, channels, height, width), all else but eps: (channels,) → as x.
    """
    # begin
    mean, var, weight, bias = (t[:, None, None] for t in (running_mean, running_var, weight, bias))
    return (x - mean) / (var + eps).sqrt() * weight + bias
    # end


def matching_loss(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    """How far one layer's input is from what the layer remembers; the loss L_BN of this layer.

    x: (batch, channels, height, width), m, r: (channels,), running mean and variance → a single number.
    """
    # begin
    mu, v = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    divergence = 0.5 * (v / r + (mu - m) ** 2 / r - 1 - (v / r).log())
    return divergence.mean()
    # end


def pooled_statistics(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all values together, from those of each batch.

    means, variances: (batches, channels), biased; sizes: (batches,), how many values each has
    → (channels,) and (channels,).
    """
    share = (sizes / sizes.sum())[:, None]  # (batches, 1)
    # begin
    mean = (share * means).sum(dim=0)
    within = (share * variances).sum(dim=0)
    between = (share * (means - mean) ** 2).sum(dim=0)
    return mean, within + between
    # end


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _activations(batch: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """Every channel, every image and every place has a level of its own, so that no mean is like another."""
    shape = batch, channels, height, width
    level = _noise(batch, channels, 1, 1, seed=seed) + 0.5 * _noise(1, channels, height, width, seed=seed + 1)
    scale = torch.linspace(0.6, 1.8, channels)[:, None, None]
    return scale * (1 + level + _noise(*shape, seed=seed + 2))


def _memory(channels: int, seed: int) -> tuple[Tensor, Tensor]:
    return _noise(channels, seed=seed), 0.5 + 2 * torch.rand(
        channels, generator=torch.Generator().manual_seed(seed)
    )


def _batches() -> list[Case]:
    return [
        Case("a batch of three images", (_activations(3, 4, 5, 2, seed=0),)),
        Case("a batch of six small images", (_activations(6, 3, 2, 2, seed=3),)),
    ]


def _batches_and_memories() -> list[Case]:
    return [
        Case("momentum 0.1", (_activations(3, 4, 2, 3, seed=6), *_memory(4, 7), 0.1)),
        Case("momentum 0.3", (_activations(5, 2, 2, 2, seed=9), *_memory(2, 10), 0.3)),
    ]


def _layers() -> list[Case]:
    """As many channels as columns, so that a wrong broadcast stops nobody; one channel hardly lives."""
    found = []
    for batch, channels, height, eps, seed in ((3, 4, 5, 1e-3, 12), (5, 3, 2, 1e-2, 15)):
        mean, var = _memory(channels, seed)
        var[0] = 2 * eps
        weight, bias = 1.5 + 0.5 * _noise(channels, seed=seed + 1), _noise(channels, seed=seed + 2)
        x = _activations(batch, channels, height, channels, seed=seed)
        found.append(Case(f"{channels} channels and eps {eps:g}", (x, mean, var, weight, bias, eps)))
    return found


def _layers_that_learn() -> list[Case]:
    return [
        Case("four channels", (_activations(3, 4, 3, 2, seed=18).requires_grad_(), *_memory(4, 19))),
        Case("seven channels", (_activations(4, 7, 2, 2, seed=21).requires_grad_(), *_memory(7, 22))),
    ]


def _summaries() -> list[Case]:
    """Batches of unequal size whose means differ."""
    found = []
    for counts, channels, seed in (((4, 30, 9), 3, 24), ((50, 6), 5, 27)):
        levels = 2 * _noise(len(counts), channels, seed=seed)
        parts = [
            level + (1 + number) * _noise(count, channels, seed=seed + number + 1)
            for number, (level, count) in enumerate(zip(levels, counts, strict=True))
        ]
        means, variances = (
            torch.stack(each)
            for each in zip(*((p.mean(dim=0), p.var(dim=0, correction=0)) for p in parts), strict=True)
        )
        sizes = torch.tensor(counts, dtype=torch.float32)
        found.append(Case(f"batches of {', '.join(map(str, counts))} values", (means, variances, sizes)))
    return found


# known mistakes that take more than a line


def _moved(
    mean: Callable[[Tensor], Tensor], var: Callable[[Tensor], Tensor], swapped: bool = False
) -> Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    """The update of the memory with other statistics of the batch, or the shares exchanged."""

    def update(x: Tensor, m: Tensor, r: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
        share = 1 - momentum if swapped else momentum
        return m + share * (mean(x) - m), r + share * (var(x) - r)

    return update


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=PLACES)


def _biased(x: Tensor) -> Tensor:
    return x.var(dim=PLACES, correction=0)


def _unbiased(x: Tensor) -> Tensor:
    return x.var(dim=PLACES, correction=1)


def _column(*each: Tensor) -> list[Tensor]:
    return [t[:, None, None] for t in each]


def _kl(mu: Tensor, v: Tensor, m: Tensor, r: Tensor) -> Tensor:
    """KL(N(mu, v) ‖ N(m, r)), element by element."""
    return 0.5 * (v / r + (mu - m) ** 2 / r - 1 - (v / r).log())


def _with_batch(x: Tensor, m: Tensor, r: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return normalise(x, _mean(x), _biased(x), weight, bias, eps)


def _bias_first(x: Tensor, m: Tensor, r: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    m, r, weight, bias = _column(m, r, weight, bias)
    return ((x - m) / (r + eps).sqrt() + bias) * weight


def _eps_outside(x: Tensor, m: Tensor, r: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    m, r, weight, bias = _column(m, r, weight, bias)
    return (x - m) / (r.sqrt() + eps) * weight + bias


def _no_root(x: Tensor, m: Tensor, r: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    m, r, weight, bias = _column(m, r, weight, bias)
    return (x - m) / (r + eps) * weight + bias


def _by_place(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    mu, v = x.mean(dim=0), x.var(dim=0, correction=0)
    return _kl(mu, v, *_column(m, r)).mean()


def _pooled(
    shares: Callable[[Tensor], Tensor], within: bool = True, between: bool = True
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The law of total variance with other shares, or one half of it."""

    def pool(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        share = shares(sizes)[:, None]
        mean = (share * means).sum(dim=0)
        inside, across = (share * variances).sum(dim=0), (share * (means - mean) ** 2).sum(dim=0)
        return mean, within * inside + between * across

    return pool


def _by_size(sizes: Tensor) -> Tensor:
    return sizes / sizes.sum()


def _evenly(sizes: Tensor) -> Tensor:
    return torch.full_like(sizes, 1 / len(sizes))


def _between_unweighted(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    mean, within = _pooled(_by_size, between=False)(means, variances, sizes)
    return mean, within + ((means - mean) ** 2).mean(dim=0)


def _deviations_averaged(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = _pooled(_by_size, between=False)(means, variances.sqrt(), sizes)
    return mean, deviation**2


def _deviation_pooled(means: Tensor, variances: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    mean, var = pooled_statistics(means, variances, sizes)
    return mean, var.sqrt()


EXERCISES = (
    Exercise(
        id="02-batch-statistics",
        title="two numbers for each channel",
        task=(
            "What does a layer take into its memory from one batch? For every channel the mean over all "
            "images and places, and the variance over the same values, *unbiased*: divided by $N - 1$."
        ),
        answer=batch_statistics,
        cases=_batches,
        mistakes=(
            Mistake(
                "biased variance",
                lambda x: (_mean(x), _biased(x)),
                "Your variance is divided by N: biased. A layer normalises by that one, but what torch puts "
                "into `running_var` is divided by N - 1.",
            ),
            Mistake(
                "standard deviation",
                lambda x: (_mean(x), _unbiased(x).sqrt()),
                "You returned standard deviations; a layer remembers variances.",
            ),
            Mistake(
                "over the batch only",
                lambda x: (x.mean(dim=0), x.var(dim=0)),
                "You averaged over the images only, and have a number for each *place*. A convolution does "
                "the same at all places, so batch norm counts them as so many more values of the channel.",
            ),
            Mistake(
                "over the channels",
                lambda x: (x.mean(dim=(1, 2, 3)), x.var(dim=(1, 2, 3))),
                "You averaged over the channels and have a number for each *image*: that is layer norm. "
                "Batch norm keeps the channels, dimension 1, apart.",
            ),
            Mistake(
                "image by image",
                lambda x: (_mean(x), x.var(dim=(2, 3)).mean(dim=0)),
                "You took the variance within each image, and then the mean over the images. That forgets "
                "how much the images differ from each other.",
            ),
            Mistake(
                "mean of squares",
                lambda x: (_mean(x), (x**2).mean(dim=PLACES)),
                "You averaged the squares without subtracting the mean first.",
            ),
        ),
        hints=(
            "Which three of the four dimensions must disappear?",
            "`x.mean(dim=(0, 2, 3))`; `x.var` takes the same `dim`, and `correction=1` divides by N - 1.",
        ),
        because=(
            "Right: dimension 1 stays, every image and place counts once. With N - 1 the estimate is right "
            "on average for values that are independent, whatever the size of the batch."
        ),
        minutes=4,
        difficulty=1,
        importance=3,
    ),
    Exercise(
        id="02-running",
        title="how memory moves",
        task=(
            "In training the memory moves a little toward each batch: "
            r"$m \leftarrow (1 - \alpha)\, m + \alpha\, \mu$, and $r$ likewise toward the batch's *unbiased* "
            r"variance, with $\alpha$ torch's `momentum`. Return both as they are after the batch."
        ),
        answer=update_memory,
        cases=_batches_and_memories,
        mistakes=(
            Mistake(
                "momentum the wrong way round",
                _moved(_mean, _unbiased, swapped=True),
                "You gave the memory the share `momentum`. In torch's batch norm it is the share of the "
                "*new* batch, unlike the momentum of an optimiser: 0.1 means that nine tenths stay.",
            ),
            Mistake(
                "biased variance",
                _moved(_mean, _biased),
                "You took in the biased variance. torch normalises by it, but remembers the unbiased one.",
            ),
            Mistake(
                "standard deviation",
                _moved(_mean, lambda x: _unbiased(x).sqrt()),
                "You mixed the batch's standard deviation into a memory of variances.",
            ),
            Mistake(
                "adds without forgetting",
                lambda x, m, r, momentum: (m + momentum * _mean(x), r + momentum * _unbiased(x)),
                "You added the batch's share and let the memory keep all of its own. It would grow with "
                "every batch: the two shares must add up to one.",
            ),
            Mistake(
                "forgets everything",
                lambda x, m, r, momentum: (_mean(x), _unbiased(x)),
                "You replaced the memory by the batch, as momentum 1 would.",
            ),
            Mistake(
                "mean only",
                lambda x, m, r, momentum: (m + momentum * (_mean(x) - m), r),
                "The mean moves as it should, and the variance stays: it moves too.",
            ),
            Mistake(
                "nothing moves",
                lambda x, m, r, momentum: (m, r),
                "You returned the memory as it was, which is what evaluation does.",
            ),
        ),
        hints=(
            "First the batch's own two numbers per channel, as in the exercise before; then a weighted mean "
            "with the memory.",
            "`(1 - momentum) * running_mean + momentum * mean`, into a *new* tensor; with `correction=1` for "
            "the variance.",
        ),
        because=(
            "Right, to the last digit of torch. Any forward pass in training does this, with or without a "
            "gradient: a memory moves though no step is taken."
        ),
        minutes=5,
        difficulty=1,
        importance=3,
    ),
    Exercise(
        id="02-normalise",
        title="the layer in evaluation",
        task=(
            "In evaluation a layer normalises by its memory, whatever the batch is: "
            r"$y = w \, \frac{x - m}{\sqrt{r + \varepsilon}} + b$, channel by channel."
        ),
        answer=normalise,
        cases=_layers,
        mistakes=(
            Mistake(
                "by the batch",
                _with_batch,
                "You normalised by the batch's own mean and variance, which is what the layer does in "
                "*training*. In evaluation an image's output must not depend on its neighbours in the batch.",
            ),
            Mistake(
                "no eps",
                lambda x, m, r, weight, bias, eps: normalise(x, m, r, weight, bias, 0.0),
                "You left out ε. A channel that hardly varies would be blown up, and one that is dead "
                "divided by zero.",
            ),
            Mistake(
                "eps outside the root",
                _eps_outside,
                "You added ε to the standard deviation. It belongs to the variance, under the root.",
            ),
            Mistake(
                "variance for its root",
                _no_root,
                "You divided by the variance, not by its root: x over x² still has units.",
            ),
            Mistake(
                "no weight and bias",
                lambda x, m, r, weight, bias, eps: normalise(
                    x, m, r, torch.ones_like(m), torch.zeros_like(m), eps
                ),
                "You left out weight and bias. They are what the layer has learned; without them every "
                "channel would speak equally loud.",
            ),
            Mistake(
                "bias before weight",
                _bias_first,
                "You added the bias before multiplying by the weight: first the weight, then the bias.",
            ),
            Mistake(
                "along the columns",
                lambda x, m, r, weight, bias, eps: (x - m) / (r + eps).sqrt() * weight + bias,
                "(channels,) against (batch, channels, height, width) is lined up with the *last* dimension, "
                "and here there happen to be as many columns as channels: no error, and all wrong. Give "
                "the statistics the shape (channels, 1, 1).",
            ),
        ),
        hints=(
            "Every statistic must be lined up with dimension 1 of x.",
            "`t[:, None, None]` has the shape (channels, 1, 1). Then the formula as it stands, ε under the "
            "root.",
        ),
        because=(
            "Right: a fixed line for each channel. So a shifted or stretched input reaches the output: in "
            "evaluation a layer is not blind to the gap."
        ),
        minutes=5,
        difficulty=1,
        importance=2,
    ),
    Exercise(
        id="02-matching",
        title="memory as a loss",
        task=(
            "Write $L_{BN}$ of one layer. With mean $\\mu$ and *biased* variance $v$ of each channel of the "
            "input, and the layer's memory $m$, $r$, it is the mean over the channels of "
            r"$\tfrac12\big(\frac{v}{r} + \frac{(\mu - m)^2}{r} - 1 - \log\frac{v}{r}\big)$. "
            "It must be possible to train with it. (No channel is dead here, so no ε is needed.)"
        ),
        answer=matching_loss,
        cases=_layers_that_learn,
        gradient=True,
        mistakes=(
            Mistake(
                "unbiased variance",
                lambda x, m, r: _kl(_mean(x), _unbiased(x), m, r).mean(),
                "You measured the unbiased variance. Only the memory is kept in that form; what the layer "
                "normalises by, and what the loss takes, is divided by N.",
            ),
            Mistake(
                "the other way round",
                lambda x, m, r: _kl(m, r, _mean(x), _biased(x)).mean(),
                "You exchanged memory and batch. The divergence is not symmetric: units are those of the "
                "memory, which stands still, and r is what one divides by.",
            ),
            Mistake(
                "standard deviation",
                lambda x, m, r: _kl(_mean(x), _biased(x).sqrt(), m, r).mean(),
                "You compared a standard deviation with the memory's variance.",
            ),
            Mistake(
                "two standard deviations",
                lambda x, m, r: _kl(_mean(x), _biased(x).sqrt(), m, r.sqrt()).mean(),
                "You put standard deviations where the formula has variances, on both sides.",
            ),
            Mistake(
                "per place",
                _by_place,
                "You took statistics over the batch only, for each place by itself. A layer has one mean and "
                "one variance per channel, over images *and* places.",
            ),
            Mistake(
                "sum over channels",
                lambda x, m, r: _kl(_mean(x), _biased(x), m, r).sum(),
                "You added up the channels. A wide layer would weigh more than a narrow one: take the mean.",
            ),
            Mistake(
                "distance is not zero at rest",
                lambda x, m, r: (_kl(_mean(x), _biased(x), m, r) + 0.5).mean(),
                "You left out the -1. Without it the loss is one half where everything agrees.",
            ),
            Mistake(
                "no logarithm",
                lambda x, m, r: 0.5 * (_biased(x) / r + (_mean(x) - m) ** 2 / r - 1).mean(),
                "You left out the logarithm. It is what keeps the variance up: without it the loss is lowest "
                "for a channel that says nothing.",
            ),
            Mistake(
                "mean only",
                lambda x, m, r: 0.5 * ((_mean(x) - m) ** 2 / r).mean(),
                "You compared the means only. In the last layers it is the spread that is missing.",
            ),
            Mistake(
                "the published norms",
                lambda x, m, r: (_mean(x) - m).norm() + (_biased(x) - r).norm(),
                "That is the form of the paper: norms in each layer's own units, larger for wide layers. "
                "Here the divergence is asked for, which has none.",
            ),
        ),
        hints=(
            "Two lines: the batch's statistics over all but the channels, then the formula.",
            "`x.var(dim=(0, 2, 3), correction=0)` is biased; a ratio `v / r` per channel, its `.log()`, and "
            "`.mean()` at the end.",
        ),
        because=(
            "Right: zero where batch and memory agree, without units, and its gradient reaches every value "
            "of x: a shift and a stretch per channel."
        ),
        minutes=7,
        difficulty=2,
        importance=3,
    ),
    Exercise(
        id="02-pooled",
        title="many batches, one memory",
        task=(
            "AdaBN replaces the memory by the target's own statistics, and the target comes in batches of "
            "unequal size. Put their means and biased variances together as if all values had come at once: "
            "`share` is each batch's share of the values. *Total variance is that within the batches plus "
            "that between them.*"
        ),
        answer=pooled_statistics,
        cases=_summaries,
        mistakes=(
            Mistake(
                "forgets differences between batches",
                _pooled(_by_size, between=False),
                "You averaged the variances. Batches also differ in their means, and that is part of the "
                "total: two batches, all 0 and all 1, have no variance each and ¼ together.",
            ),
            Mistake(
                "between only",
                _pooled(_by_size, within=False),
                "You have the variance of the means. What the values vary *within* each batch comes on top.",
            ),
            Mistake(
                "all batches alike",
                _pooled(_evenly),
                "You gave every batch the same share. The last batch of an epoch is often small, and its few "
                "values would count for many.",
            ),
            Mistake(
                "between without shares",
                _between_unweighted,
                "The means' spread counts every batch alike; weigh it by `share`, as the rest.",
            ),
            Mistake(
                "averages deviations",
                _deviations_averaged,
                "You averaged standard deviations. Variances can be averaged, their roots cannot; and the "
                "differences between batches are missing.",
            ),
            Mistake(
                "standard deviation",
                _deviation_pooled,
                "You took the root at the end; a layer remembers variances.",
            ),
        ),
        hints=(
            "Three weighted sums over dimension 0: of the means, of the variances, of the squared distances "
            "of the batches' means from the mean of all.",
            "`(share * variances).sum(dim=0) + (share * (means - mean) ** 2).sum(dim=0)`.",
        ),
        because=(
            "Right: no value had to be kept. The second part is small for large batches drawn at random, and "
            "large if each batch shows one kind of room."
        ),
        minutes=6,
        difficulty=2,
        importance=2,
    ),
)

QUESTIONS = (
    Question(
        "02-modes",
        "You forget network.eval() and test on batches of 32, under torch.no_grad(). What happens?",
        (
            Option(
                "Nothing: without a gradient the network cannot change.",
                "The memory is not moved by gradients. Every forward pass in training mode moves it, under "
                "no_grad too.",
            ),
            Option(
                "A prediction depends on which other images are in its batch, and the memory moves.",
                "In training mode the layers normalise by the batch at hand and take it into their memory. "
                "Test twice, shuffled, and you get two accuracies.",
                right=True,
            ),
            Option(
                "Only dropout is affected, and this network has none.",
                "Batch norm is the other layer that is two functions, as the first section shows.",
            ),
            Option(
                "Accuracy on depth must fall.",
                "On depth it may well rise: statistics of the batch fit depth better than a memory of "
                "colour. That is luck by mistake, and depends on who is in the batch.",
            ),
        ),
    ),
    Question(
        "02-adabn",
        "Your robot sends one depth picture at a time, each of another room. By what should the layers "
        "normalise?",
        (
            Option(
                "By the batch at hand, a batch of one.",
                "A batch of one is one room. Its own mean and spread would be divided out, though they may "
                "be what tells it from other rooms.",
            ),
            Option(
                "By the source's memory.",
                "Depth is far from it at every layer, as the pictures of this notebook show.",
            ),
            Option(
                "By a memory that was re-estimated on many depth pictures beforehand.",
                "That is AdaBN: measured once, over many rooms, and then held. A picture's answer no longer "
                "depends on who came with it.",
                right=True,
            ),
            Option(
                "In training mode, so that the memory follows the robot.",
                "Training mode does not normalise by the memory at all, but by the one picture; and the "
                "memory soon holds the last few rooms only.",
            ),
        ),
    ),
    Question(
        "02-share",
        "The published loss multiplies L_BN by σ(g), and g is trained too. With one source, why does the "
        "term vanish within a few steps?",
        (
            Option(
                "Because the statistics match by then.",
                "The weight would fall just the same if the distance did not change at all, as in the cell "
                "above: there it is a constant.",
            ),
            Option(
                "Because lowering the weight lowers the loss, and nothing pulls it up again.",
                "The distance is positive, so the gradient on its own weight always has one sign. Shares "
                "that add up to one cannot all shrink; a single one is 1 whatever g is.",
                right=True,
            ),
            Option(
                "Because weight decay draws g to zero.",
                "σ(0) is one half, so half of the term would be left.",
            ),
            Option(
                "Because the learning rate of g is too large.",
                "A smaller one takes longer to the same end: the gradient never changes its sign.",
            ),
        ),
    ),
)
