"""A recipe: all hyperparameters of an adaptation, with their ranges, labels and help texts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from socketlab.errors import LabError

METHODS = ("source-only", "batch", "adabn", "tent", "shot-im", "shot", "aad", "socket", "paper")
"""One network or several: with several, source-only and AdaBN average them, and SHOT becomes DECISION."""


@dataclass(frozen=True)
class Knob:
    """Range or choices of one field, and the texts of its slider and command-line option."""

    label: str
    help: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()


def knob(default: Any, *about: Any, **more: Any) -> Any:
    """A dataclass field that carries its `Knob`."""
    return field(default=default, metadata={"knob": Knob(*about, **more)})


@dataclass(frozen=True)
class Recipe:
    """All hyperparameters of an adaptation; validated when made, never changed.

    Raises
    ------
    LabError : a value outside its range or not among its choices.
    """

    # fmt: off
    lambda_ti: float = knob(3.0, "λ_TI", "weight of paired alignment", 0, 30)
    lambda_bn: float = knob(0.0, "λ_d", "weight of batch-norm statistics matching", 0, 10)
    lambda_pl: float = knob(0.3, "λ_PL", "weight of the pseudo-labels", 0, 3)
    lambda_im: float = knob(1.0, "λ_IM", "weight of information maximisation", 0, 3)
    lambda_entropy: float = knob(0.0, "λ_H", "weight of the entropy of each prediction, as in TENT", 0, 3)
    lambda_aad: float = knob(0.0, "λ_AaD", "weight of attracting neighbours and dispersing the rest", 0, 3)
    trunk_lr: float = knob(0.05, "rate (trunk)", "peak learning rate of the trunk", 1e-5, 0.5, log=True)
    bottleneck_lr: float = knob(
        0.05, "rate (bottleneck)", "peak learning rate of the bottleneck", 1e-5, 0.5, log=True)
    mixing_lr: float = knob(
        0.01, "rate (mixing)", "peak learning rate of the mixing weights", 1e-5, 0.5, log=True)
    align_epochs: int = knob(10, "epochs of alignment", "first epochs, with paired alignment alone", 0, 100)
    epochs: int = knob(5, "epochs of all terms", "epochs with every term", 0, 100)
    batch_size: int = knob(32, "batch", "images per step, of the target and of pairs", 4, 512)
    schedule: str = knob("one-cycle", "schedule", "how the learning rate changes",
                         choices=("one-cycle", "paper"))
    source_gradient: str = knob(
        "whole", "several sources", "each network learns as fast as it would alone, or by its share of the "
        "gradient", choices=("whole", "share"))
    mixing_start: str = knob(
        "information", "shares begin", "by each network's certainty on the target after alignment, or even",
        choices=("information", "even"))
    bn_mode: str = knob(
        "batch", "normalise by", "statistics that normalise target batches in training: the batch's or the "
        "running ones", choices=("batch", "running"))
    bn_form: str = knob("kl", "form of L_BN", "divergence, or published norms", choices=("kl", "paper"))
    bn_layers: str = knob(
        "all", "layers of L_BN", "matched batch-norm layers: all, the first, the earlier or later half",
        choices=("all", "first", "early", "late"))
    bn_average: float = knob(
        0.0, "average in L_BN", "weight of past batches in the moving average that L_BN matches", 0, 0.99)
    bn_share: str = knob(
        "normalised", "share of L_BN", "each source's share of L_BN: its mixing weight, or the published "
        "trainable sigmoid", choices=("normalised", "raw"))
    ti_form: str = knob("mean", "form of L_TI", "mean square, or published norm", choices=("mean", "paper"))
    ti_map: float = knob(
        1.0, "maps in L_TI", "weight, in L_TI, of the trunk's last map place by place", 0, 10)
    pair_views: int = knob(
        4, "views of a pair", "crops of each pair that are shown in turn and cached; 0 cuts a new one every "
        "time", 0, 64)
    pseudo_labels: str = knob("shot", "pseudo-labels", "two cosine rounds, or one Euclidean",
                              choices=("shot", "paper"))
    test_statistics: str = knob(
        "reestimated", "test with", "statistics to test with: re-estimated on the target (AdaBN), the "
        "running averages of training, or the batch's own", choices=("reestimated", "running", "batch"))
    trained: str = knob("all", "what learns", "all weights, or those of norm layers alone",
                        choices=("all", "norm"))
    precision: str = knob(
        "auto", "precision", "of convolutions in training: 16 bits where the processor has such "
        "arithmetic, 32 elsewhere", choices=("auto", "float32", "bfloat16"))
    # fmt: on

    def __post_init__(self) -> None:
        for f in fields(self):
            value = _checked(f.name, getattr(self, f.name), f.metadata["knob"], type(f.default))
            object.__setattr__(self, f.name, value)

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with other values; a LabError names an unknown field."""
        unknown = set(changes) - set(knobs())
        if unknown:
            raise LabError(f"a recipe has no {', '.join(sorted(unknown))}: choose among {', '.join(knobs())}")
        return dataclasses.replace(self, **changes)

    @property
    def total_epochs(self) -> int:
        """Epochs of alignment and of all terms together."""
        return self.align_epochs + self.epochs

    @classmethod
    def socket(cls) -> Recipe:
        """SOCKET as this kit recommends it: align on the pairs first, then all terms.

        ``lambda_bn`` is 0: where target batches are normalised by their own statistics, matching these
        was worth nothing that could be measured (docs/results.md, "What matching batch-norm statistics is
        worth").
        """
        return cls()

    @classmethod
    def shot(cls) -> Recipe:
        """SHOT, or DECISION with several sources: the target's own images and pseudo-labels, no pairs.

        The mixing weights begin even, as published: no network has been aligned to the target yet.
        """
        return cls(lambda_ti=0.0, lambda_bn=0.0, align_epochs=0, epochs=15, mixing_start="even")

    @classmethod
    def tent(cls) -> Recipe:
        """TENT: entropy moves batch norm's scale and shift alone; batch statistics in training and test.

        Source: Wang et al., ICLR 2021; offline here, for as many epochs as SHOT, by SGD. The paper makes one
        pass by Adam, predicts from it, and trains BatchNorm2d alone.
        """
        return cls.shot().replace(
            lambda_pl=0.0, lambda_im=0.0, lambda_entropy=1.0, trained="norm", trunk_lr=1e-3,
            bottleneck_lr=1e-3, batch_size=64, test_statistics="batch",
        )  # fmt: skip

    @classmethod
    def paper(cls) -> Recipe:
        """The published weights, forms and rates of SOCKET, and what its code does with one source.

        With several, L_TI and L_BN are mixtures of each source's norm here; that code takes one norm of the
        mixed difference (docs/published_code.md lists all departures). Each difference from `socket` can be
        put back by itself: ``bn_form``, ``bn_share``, ``ti_form``, ``pseudo_labels``, ``ti_map``,
        ``test_statistics``, ``source_gradient``, ``mixing_start``, the rates and the schedule.
        """
        return cls(
            lambda_ti=0.5, lambda_bn=0.5, lambda_pl=0.3, lambda_im=1.0, trunk_lr=1e-3, bottleneck_lr=1e-2,
            align_epochs=0, epochs=15, schedule="paper", source_gradient="share", mixing_start="even",
            bn_form="paper", bn_share="raw", ti_form="paper", ti_map=0.0, pair_views=0, pseudo_labels="paper",
            test_statistics="running",
        )  # fmt: skip

    @classmethod
    def for_method(cls, method: str) -> Recipe:
        """The recipe behind each name in ``METHODS``."""
        nothing: dict[str, Any] = {"lambda_ti": 0.0, "lambda_bn": 0.0, "align_epochs": 0, "epochs": 0}
        recipes = {
            "source-only": lambda: cls(**nothing, test_statistics="running"),
            "batch": lambda: cls(**nothing, test_statistics="batch"),
            "adabn": lambda: cls(**nothing),
            "tent": cls.tent,
            "shot-im": lambda: cls.shot().replace(lambda_pl=0.0),
            "shot": cls.shot,
            "aad": lambda: cls.shot().replace(lambda_pl=0.0, lambda_im=0.0, lambda_aad=1.0),
            "socket": cls.socket,
            "paper": cls.paper,
        }
        if method not in recipes:
            raise LabError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        return recipes[method]()


def knobs() -> dict[str, Knob]:
    """Field name → its `Knob`, in the order of the fields."""
    return {f.name: f.metadata["knob"] for f in fields(Recipe)}


def _checked(name: str, value: Any, about: Knob, kind: type) -> Any:
    """The value in its field's type, or a LabError with what is allowed."""
    if about.choices:
        if value not in about.choices:
            raise LabError(f"{name} = {value!r} is unknown: choose one of {', '.join(about.choices)}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind is int and value % 1 != 0):
        raise LabError(f"{name} = {value!r} must be {'a whole number' if kind is int else 'a number'}")
    if not about.low <= value <= about.high:  # type: ignore[operator]  # NaN fails too
        raise LabError(
            f"{name} = {value} is out of range: it must lie between {about.low:g} and {about.high:g}"
        )
    return kind(value)
