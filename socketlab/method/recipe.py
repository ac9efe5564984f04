"""A recipe: all hyperparameters of an adaptation, with their ranges, labels and help texts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from socketlab.errors import LabError, require_choice

METHODS = ("source-only", "batch", "adabn", "tent", "shot-im", "shot", "aad", "socket", "paper")
"""One network or several: with several, source-only and AdaBN average them, and SHOT becomes DECISION."""
RATES = 1e-5, 0.5, True


@dataclass(frozen=True)
class Knob:
    """Range or choices of one field, and the texts of its slider and command-line option."""

    label: str
    help: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()


def number(default: float, label: str, help: str, low: float, high: float, log: bool = False) -> Any:
    """A field between two bounds, with its `Knob`."""
    return field(default=default, metadata={"knob": Knob(label, help, low, high, log)})


def choice(*choices: str, label: str, help: str) -> Any:
    """A field with some choices, of which the first is the default, with its `Knob`."""
    return field(default=choices[0], metadata={"knob": Knob(label, help, choices=choices)})


@dataclass(frozen=True)
class Recipe:
    """All hyperparameters of an adaptation; validated when made, never changed.

    Raises
    ------
    LabError : a value outside its range or not among its choices.
    """

    # fmt: off
    lambda_ti: float = number(3.0, "λ_TI", "weight of paired alignment", 0, 30)
    lambda_bn: float = number(0.0, "λ_d", "weight of batch-norm statistics matching", 0, 10)
    lambda_pl: float = number(0.3, "λ_PL", "weight of the pseudo-labels", 0, 3)
    lambda_im: float = number(1.0, "λ_IM", "weight of information maximisation", 0, 3)
    lambda_entropy: float = number(0.0, "λ_H", "weight of the entropy of each prediction, as in TENT", 0, 3)
    lambda_aad: float = number(0.0, "λ_AaD", "weight of attracting neighbours and dispersing the rest", 0, 3)
    trunk_lr: float = number(0.05, "rate (trunk)", "peak learning rate of the trunk", *RATES)
    bottleneck_lr: float = number(0.05, "rate (bottleneck)", "peak learning rate of the bottleneck", *RATES)
    mixing_lr: float = number(0.01, "rate (mixing)", "peak learning rate of the mixing weights", *RATES)
    align_epochs: int = number(10, "epochs of alignment", "first epochs, with paired alignment alone", 0, 100)
    epochs: int = number(5, "epochs of all terms", "epochs with every term", 0, 100)
    batch_size: int = number(32, "batch", "images per step, of the target and of pairs", 4, 512)
    schedule: str = choice("one-cycle", "paper", label="schedule", help="how the learning rate changes")
    source_gradient: str = choice(
        "whole", "share", label="several sources", help="each learns as fast as alone, or by its share")
    mixing_start: str = choice(
        "information", "even", label="shares begin", help="by certainty on the target, or even")
    bn_mode: str = choice(
        "batch", "running", label="normalise by", help="statistics of target batches, or running ones")
    bn_form: str = choice("kl", "paper", label="form of L_BN", help="divergence, or published norms")
    bn_layers: str = choice(
        "all", "first", "early", "late", label="layers of L_BN", help="all, the first, or a half of them")
    bn_average: float = number(
        0.0, "average in L_BN", "weight of past batches in the moving average that L_BN matches", 0, 0.99)
    bn_share: str = choice(
        "normalised", "raw", label="share of L_BN", help="mixing weight, or the published trainable sigmoid")
    ti_form: str = choice("mean", "paper", label="form of L_TI", help="mean square, or published norm")
    ti_map: float = number(1.0, "maps in L_TI", "weight in L_TI of the last map, place by place", 0, 10)
    pair_views: int = number(
        4, "views of a pair", "crops of each pair that are shown in turn; 0 cuts a new one every time", 0, 64)
    pair_statistics: str = choice(
        "own", "shared", label="pairs normalised", help="by their own batch, or together with the target's")
    pseudo_labels: str = choice(
        "shot", "paper", label="pseudo-labels", help="two cosine rounds, or one Euclidean")
    test_statistics: str = choice(
        "reestimated", "running", "batch", label="test with", help="AdaBN's, those of training, the batch's")
    trained: str = choice("all", "norm", label="what learns", help="all weights, or those of norm layers")
    precision: str = choice(
        "auto", "float32", "bfloat16", label="precision", help="16 bits where the processor has them, or 32")
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
        """SOCKET as this kit recommends it: pairs first, then all terms; λ_d is 0 (docs/results.md)."""
        return cls()

    @classmethod
    def thorough(cls) -> Recipe:
        """SOCKET with less alignment alone, twice as many epochs, and new crops of the pairs all the time."""
        return cls(align_epochs=3, epochs=27, pair_views=0)

    @classmethod
    def shot(cls) -> Recipe:
        """SHOT, or DECISION with several sources: the target's own images and pseudo-labels, no pairs."""
        return cls(lambda_ti=0.0, lambda_bn=0.0, align_epochs=0, epochs=15, mixing_start="even")

    @classmethod
    def tent(cls) -> Recipe:
        """TENT (Wang et al., ICLR 2021): entropy trains norm layers alone; batch statistics, also in tests.

        Offline here, for as many epochs as SHOT, by SGD; the paper makes one pass by Adam.
        """
        return cls.shot().replace(
            lambda_pl=0.0, lambda_im=0.0, lambda_entropy=1.0, trained="norm", trunk_lr=1e-3,
            bottleneck_lr=1e-3, batch_size=64, test_statistics="batch",
        )  # fmt: skip

    @classmethod
    def paper(cls) -> Recipe:
        """The published weights, forms and rates of SOCKET; docs/published_code.md lists the departures.

        With several sources, L_TI and L_BN are mixtures of each source's norm here; the published code takes
        one norm of the mixed difference. Each difference from `socket` can be changed by itself.
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
        require_choice("method", method, METHODS)
        return {
            "source-only": cls(**nothing, test_statistics="running"),
            "batch": cls(**nothing, test_statistics="batch"),
            "adabn": cls(**nothing),
            "tent": cls.tent(),
            "shot-im": cls.shot().replace(lambda_pl=0.0),
            "shot": cls.shot(),
            "aad": cls.shot().replace(lambda_pl=0.0, lambda_im=0.0, lambda_aad=1.0),
            "socket": cls.socket(),
            "paper": cls.paper(),
        }[method]


def knobs() -> dict[str, Knob]:
    """Field name → its `Knob`, in the order of the fields."""
    return {f.name: f.metadata["knob"] for f in fields(Recipe)}


def _checked(name: str, value: Any, about: Knob, kind: type) -> Any:
    """The value in its field's type, or a LabError with what is allowed."""
    if about.choices:
        require_choice(name, value, about.choices)
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind is int and value % 1 != 0):
        raise LabError(f"{name} = {value!r} must be {'a whole number' if kind is int else 'a number'}")
    if not about.low <= value <= about.high:  # type: ignore[operator]  # NaN fails too
        raise LabError(f"{name} = {value} must lie between {about.low:g} and {about.high:g}")
    return kind(value)
