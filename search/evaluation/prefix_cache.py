"""Features that are kept, so that architectures with the same first blocks need not compute them again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from nnunetv2_slicemamba.slicing.candidates import Architecture


@dataclass(frozen=True)
class Features:
    """Features behind a block. x: (B, *spatial, C). skips: of the encoder so far, as in its forward pass."""

    x: Tensor
    skips: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.x, *self.skips)


class PrefixCache:
    """Features behind the first blocks of architectures, in at most `capacity` bytes.

    A key is (batch, prefix): which cases, and the candidates of the first blocks. Tensors that several features hold
    are counted once. What has not been used for longest goes first, and what `expect` named goes last.
    capacity: in bytes; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._features: OrderedDict[tuple[int, Architecture], Features] = OrderedDict()
        self._holders: Counter[int] = Counter()
        self._expected: frozenset[Architecture] = frozenset()

    def __len__(self) -> int:
        return len(self._features)

    def expect(self, ordered: Iterable[Architecture]) -> None:
        """Architectures that will be evaluated, in this order: where each of them leaves the one before is needed."""
        expected: set[Architecture] = set()
        last: Architecture | None = None
        for architecture in ordered:
            if last is not None:
                expected.add(architecture[: shared_blocks(last, architecture)])
            last = architecture
        self._expected = frozenset(expected)

    def is_expected(self, prefix: Architecture) -> bool:
        """Whether one of the expected architectures begins there."""
        return prefix in self._expected

    def longest(self, batch: int, architecture: Architecture) -> tuple[int, Features | None]:
        """The longest prefix of the architecture that is there: its number of blocks, and its features."""
        for length in range(len(architecture), -1, -1):
            key = (batch, architecture[:length])
            found = self._features.get(key)
            if found is not None:
                self._features.move_to_end(key)
                return length, found
        return 0, None

    def keep(self, batch: int, prefix: Architecture, features: Features) -> None:
        """Keeps the features behind a prefix, if there is or can be made room."""
        key = (batch, prefix)
        if self.capacity == 0 or key in self._features:
            return
        self._features[key] = features
        for tensor in features.tensors:
            self._hold(tensor)
        while self.used > self.capacity:
            self._drop(self._next_to_go())

    def clear(self) -> None:
        """Forgets all features."""
        self._features.clear()
        self._holders.clear()
        self.used = 0

    def _next_to_go(self) -> tuple[int, Architecture]:
        return next((key for key in self._features if key[1] not in self._expected), next(iter(self._features)))

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if not self._holders[storage.data_ptr()]:
            self.used += storage.nbytes()
        self._holders[storage.data_ptr()] += 1

    def _drop(self, key: tuple[int, Architecture]) -> None:
        for tensor in self._features.pop(key).tensors:
            storage = tensor.untyped_storage()
            self._holders[storage.data_ptr()] -= 1
            if not self._holders[storage.data_ptr()]:
                del self._holders[storage.data_ptr()]
                self.used -= storage.nbytes()


def shared_blocks(one: Architecture, other: Architecture) -> int:
    """Number of first blocks that two architectures have in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
