"""A recipe: every number of an adaptation, with its range and the words of its slider."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from socketlab.errors import LabError

METHODS = ("source-only", "batch", "adabn", "tent", "shot-im", "shot", "aad", "socket", "paper")
"""One network or several: with several, source-only and AdaBN average them, and SHOT becomes DECISION."""


@dataclass(frozen=True)
class Knob:
    """What a slider, the command line and the validation know of one field."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    label: str = ""
    help: str = ""


def knob(default: Any, **about: Any) -> Any:
    """A dataclass field that carries its `Knob`."""
    return field(default=default, metadata={"knob": Knob(**about)})


@dataclass(frozen=True)
class Recipe:
    """Every number of an adaptation; validated when made, never changed.

    Raises
    ------
    LabError
        When a value is outside its range or not among its choices.
    """

    lambda_ti: float = knob(3.0, low=0.0, high=30.0, label="λ_TI", help="weight of paired alignment")
    lambda_bn: float = knob(
        0.0, low=0.0, high=10.0, label="λ_d", help="weight of batch-norm statistics matching"
    )
    lambda_pl: float = knob(0.3, low=0.0, high=3.0, label="λ_PL", help="weight of the pseudo-labels")
    lambda_im: float = knob(1.0, low=0.0, high=3.0, label="λ_IM", help="weight of information maximisation")
    lambda_entropy: float = knob(
        0.0, low=0.0, high=3.0, label="λ_H", help="weight of the entropy of each prediction, as in TENT"
    )
    lambda_aad: float = knob(
        0.0, low=0.0, high=3.0, label="λ_AaD", help="weight of attracting neighbours and dispersing the rest"
    )
    trunk_lr: float = knob(
        0.05, low=1e-5, high=0.5, log=True, label="rate (trunk)", help="peak learning rate of the trunk"
    )
    bottleneck_lr: float = knob(
        0.05,
        low=1e-5,
        high=0.5,
        log=True,
        label="rate (bottleneck)",
        help="peak learning rate of the bottleneck",
    )
    mixing_lr: float = knob(
        0.01, low=1e-5, high=0.5, log=True, label="rate (mixing)", help="peak rate of the sources' shares"
    )
    align_epochs: int = knob(
        10,
        low=0,
        high=100,
        label="epochs of alignment",
        help="first epochs, with paired alignment alone",
    )
    epochs: int = knob(5, low=0, high=100, label="epochs of all terms", help="epochs with every term")
    batch_size: int = knob(
        32, low=4, high=512, label="batch", help="images per step, of the target and of pairs"
    )
    schedule: str = knob(
        "one-cycle", choices=("one-cycle", "paper"), label="schedule", help="how the learning rate moves"
    )
    source_gradient: str = knob(
        "whole",
        choices=("whole", "share"),
        label="several sources",
        help="each network learns as fast as it would alone, or by its share of the gradient",
    )
    mixing_start: str = knob(
        "information",
        choices=("information", "even"),
        label="shares begin",
        help="by how sure each network is of the target when the alignment ends, or even",
    )
    bn_mode: str = knob(
        "batch",
        choices=("batch", "running"),
        label="normalise by",
        help="statistics that normalise target batches in training: the batch's or the running ones",
    )
    bn_form: str = knob(
        "kl", choices=("kl", "paper"), label="form of L_BN", help="divergence, or published norms"
    )
    bn_layers: str = knob(
        "all",
        choices=("all", "first", "early", "late"),
        label="layers of L_BN",
        help="batch-norm layers that are matched: all, the first, the earlier or the later half",
    )
    bn_average: float = knob(
        0.0,
        low=0.0,
        high=0.99,
        label="memory in L_BN",
        help="share of the batches before in the statistics that are matched",
    )
    bn_share: str = knob(
        "normalised",
        choices=("normalised", "raw"),
        label="share of L_BN",
        help="each source's share of L_BN: its mixing weight, or the published trainable sigmoid",
    )
    ti_form: str = knob(
        "mean", choices=("mean", "paper"), label="form of L_TI", help="mean square, or published norm"
    )
    ti_map: float = knob(
        1.0,
        low=0.0,
        high=10.0,
        label="maps in L_TI",
        help="weight, in L_TI, of the trunk's last map place by place",
    )
    pair_views: int = knob(
        4,
        low=0,
        high=64,
        label="views of a pair",
        help="crops of each pair that are shown in turn and remembered; 0 cuts a new one every time",
    )
    pseudo_labels: str = knob(
        "shot", choices=("shot", "paper"), label="pseudo-labels", help="two cosine rounds, or one Euclidean"
    )
    test_statistics: str = knob(
        "reestimated",
        choices=("reestimated", "running", "batch"),
        label="test with",
        help="statistics to test with: re-estimated on the target (AdaBN), as they ran, or the batch's own",
    )
    trained: str = knob(
        "all", choices=("all", "norm"), label="what learns", help="all weights, or batch norm's alone"
    )
    precision: str = knob(
        "auto",
        choices=("auto", "float32", "bfloat16"),
        label="precision",
        help="of convolutions in training: 16 bits where the processor is made for them, 32 elsewhere",
    )

    def __post_init__(self) -> None:
        for name, about in knobs().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), about, type(_default(name))))

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

        Its shares begin even, as published: of networks that have not been aligned none knows the target.
        """
        return cls(lambda_ti=0.0, lambda_bn=0.0, align_epochs=0, epochs=15, mixing_start="even")

    @classmethod
    def tent(cls) -> Recipe:
        """TENT: entropy moves batch norm's scale and shift alone; batch statistics in training and test.

        Source: Wang et al., ICLR 2021; for as many epochs as SHOT here, where the paper makes one pass.
        """
        return cls.shot().replace(
            lambda_pl=0.0, lambda_im=0.0, lambda_entropy=1.0, trained="norm", trunk_lr=1e-3,
            bottleneck_lr=1e-3, batch_size=64, test_statistics="batch",
        )  # fmt: skip

    @classmethod
    def paper(cls) -> Recipe:
        """The published weights, forms and rates of SOCKET, with what its code does.

        Each departure from `socket` can be put back by itself: ``bn_form``, ``bn_share``, ``ti_form``,
        ``pseudo_labels``, ``ti_map``, ``test_statistics``, ``source_gradient``, ``mixing_start``, the rates
        and the schedule.
        """
        return cls(
            lambda_ti=0.5,
            lambda_bn=0.5,
            lambda_pl=0.3,
            lambda_im=1.0,
            trunk_lr=1e-3,
            bottleneck_lr=1e-2,
            align_epochs=0,
            epochs=15,
            schedule="paper",
            source_gradient="share",
            mixing_start="even",
            bn_form="paper",
            bn_share="raw",
            ti_form="paper",
            ti_map=0.0,
            pair_views=0,
            pseudo_labels="paper",
            test_statistics="running",
        )

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


def _default(name: str) -> Any:
    return next(f.default for f in fields(Recipe) if f.name == name)


def _checked(name: str, value: Any, about: Knob, kind: type) -> Any:
    """The value in its field's type, or one sentence that says what is allowed."""
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
