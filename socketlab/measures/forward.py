"""Forward passes of images through any network that leave no trace: hooks, modes, random state go back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from socketlab.cache import feed_bytes, fingerprint
from socketlab.errors import LabError
from socketlab.images.encodings import Normalisation
from socketlab.images.paired_images import PairedImages
from socketlab.method.evaluate import encoded_batches, evaluating
from socketlab.method.steps import fast_bfloat16
from socketlab.networks.networks import device_of

Images = PairedImages | Tensor | Iterable[Any]
"""Of one modality, or (N, C, H, W), or batches (B, C, H, W), as from a list or a DataLoader."""
Transform = Normalisation | Callable[[Tensor], Tensor] | None
"""From stored images to what the network reads: (B, C, H, W) → (B, C', H', W') float."""
Progress = Callable[[int, int | None], object]
"""Told after each batch how many images are done, and of how many where that is known."""

PRECISIONS = ("auto", "float32", "bfloat16")
Hook = Callable[..., None]


class Reader:
    """Images of any kind as encoded batches: read again at every ``iter``.

    Raises
    ------
    LabError : `PairedImages` without a transform; reading what is neither float images nor becomes so.
    """

    def __init__(self, images: Images, transform: Transform, batch: int) -> None:
        self.images = torch.as_tensor(images) if isinstance(images, np.ndarray) else images
        self.transform = transform
        self.batch = batch
        if isinstance(images, PairedImages) and transform is None:
            raise LabError("PairedImages are as the sensor stored them: give the network's normalisation.")

    @property
    def total(self) -> int | None:
        """How many images there are, where that is known before they are read."""
        return len(self.images) if isinstance(self.images, Tensor | PairedImages) else None

    def __iter__(self) -> Iterator[Tensor]:
        if isinstance(self.images, PairedImages) and isinstance(self.transform, Normalisation):
            yield from encoded_batches(self.images, self.transform, self.batch)
            return
        encode = self.transform.encode if isinstance(self.transform, Normalisation) else self.transform
        for stored in self._stored():
            encoded = stored if encode is None else encode(stored)
            if not isinstance(encoded, Tensor) or not encoded.is_floating_point() or encoded.ndim < 2:
                like = (
                    f"{encoded.dtype} {tuple(encoded.shape)}"
                    if isinstance(encoded, Tensor)
                    else type(encoded)
                )
                raise LabError(
                    f"A network reads batches (B, C, H, W) of floats, not {like}: give a transform."
                )
            yield encoded

    def _stored(self) -> Iterator[Any]:
        if isinstance(self.images, Tensor | PairedImages):
            images = (
                self.images if isinstance(self.images, Tensor) else self.images.images[self.images.modality]
            )
            for start in range(0, len(images), self.batch):
                yield images[start : start + self.batch]
            return
        for one in self.images:
            yield one[0] if isinstance(one, list | tuple) and one else one  # images and labels

    def digest(self) -> str:
        """Of the images as the network reads them; takes a reading."""
        if not isinstance(self.images, Tensor | PairedImages) and iter(self.images) is self.images:
            raise LabError(
                "These images can be read once, and a cache reads them twice: give a list, a tensor or a "
                "DataLoader, or no cache."
            )
        state = ContentDigest()
        with steady_randomness():
            for encoded in self:
                state.add(encoded)
        return state.hex()


class ContentDigest:
    """SHA-256 of a stream of batches, whatever their sizes."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._like: tuple[Any, ...] = ()
        self._count = 0

    def add(self, batch: Tensor) -> None:
        """Take in one more batch."""
        if self._like != (batch.shape[1:], batch.dtype):
            self._like = (batch.shape[1:], batch.dtype)
            self._state.update(f"<{self._count} {batch.dtype} {tuple(batch.shape[1:])}>".encode())
        feed_bytes(self._state, batch)
        self._count += len(batch)

    def hex(self) -> str:
        """The digest so far."""
        return self._state.hexdigest()


class ForwardPass:
    """All images through a network, in eval mode, without gradients, a batch at a time.

    Parameters
    ----------
    network, images, transform, batch, device, precision, progress : see `layer_features.extract_features`.

    Raises
    ------
    LabError : an unknown precision, or what `Reader` refuses.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        transform: Transform = None,
        batch: int = 256,
        device: torch.device | str | None = None,
        precision: str = "auto",
        progress: Progress | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise LabError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
        self.network, self.progress = network, progress
        self.reader = Reader(images, transform, batch)
        self.device = device_of(network) if device is None else torch.device(device)
        self.half = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(self.device))
        self.size = 0
        self._digest: str | None = None

    def fingerprint(self, *asked: Any) -> str:
        """Of all that the numbers depend on; takes a reading of the images."""
        self._digest = self.reader.digest()
        products = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        where = [self.device.type, self.half, torch.__version__, *products]
        return fingerprint(1, network_fingerprint(self.network), self._digest, where, list(asked))

    def run(
        self, hooks: Callable[[nn.Module], list[tuple[nn.Module, Hook]]], after: Hook, before: bool = False
    ) -> None:
        """Pass all images; ``size`` is that of the batch under way.

        Parameters
        ----------
        hooks : from the network (or its copy on the device) to modules and their hooks.
        after : called without arguments after each batch.
        before : whether hooks come before the forward pass of their modules.

        Raises
        ------
        LabError : there are no images, or they differ from those of the fingerprint.
        """
        done, seen = 0, ContentDigest()
        with _looking_at(self.network, self.device, self.half) as network, hooked(hooks(network), before):
            for encoded in self.reader:
                if self._digest is not None:
                    seen.add(encoded)
                self.size = len(encoded)
                network(encoded.to(self.device))
                after()
                done += self.size
                if self.progress is not None:
                    self.progress(done, self.reader.total)
        if done == 0:
            raise LabError("There are no images to measure.")
        if self._digest not in (None, seen.hex()):
            raise LabError(
                "The images differed when they were read again, so nothing was kept: take shuffling and "
                "random changes out of what loads them, or give no cache."
            )


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, Hook]], before: bool = False) -> Iterator[None]:
    """Forward hooks (or those that come before) on modules within the block, and never after it."""
    handles = []
    try:
        for module, hook in hooks:
            add = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(add(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def steady_randomness() -> Iterator[None]:
    """The same random numbers in every such block; torch's generators, CPU and CUDA, are then put back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


@contextmanager
def _looking_at(network: nn.Module, device: torch.device, half: bool) -> Iterator[nn.Module]:
    """The network, or a copy of it where it does not lie on the device, as it is looked at."""
    lies = device_of(network)
    same = lies.type == device.type and device.index in (None, lies.index)
    there = network if same else copy.deepcopy(network).to(device)
    numbers = torch.autocast(device.type, torch.bfloat16, enabled=half)
    with steady_randomness(), evaluating(there), torch.no_grad(), numbers:
        yield there


def network_fingerprint(network: nn.Module) -> str:
    """SHA-256 of weights and buffers, structure, plain attributes, and the code of classes outside torch.

    Not seen: functions that a forward pass calls beside its own methods, and hooks.
    """
    tensors = {**_named(network.named_parameters), **_named(network.named_buffers)}
    plain: dict[str, Any] = {}
    code: dict[str, Any] = {}
    for name, module in network.named_modules():
        kept = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        plain[name] = [[k, v] for k, v in kept.items() if isinstance(v, bool | int | float | str)]
        methods = {k: v for k, v in kept.items() if isinstance(v, FunctionType | MethodType)}
        for kind in type(module).__mro__:
            if not kind.__module__.startswith("torch.") and kind is not object:
                methods |= {f"{kind.__qualname__}.{k}": v for k, v in vars(kind).items()}
        code |= {k: _code(v.__code__) for k, v in methods.items() if hasattr(v, "__code__")}
    return fingerprint(type(network).__qualname__, repr(network), tensors, plain, code)


def _named(listing: Callable[..., Iterator[tuple[str, Tensor]]]) -> dict[str, Tensor]:
    return dict(listing(remove_duplicate=False))


def _code(code: CodeType) -> list[Any]:
    """What a function does, without where it is written."""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return [code.co_code, list(code.co_names), constants]


def _constant(value: object) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
