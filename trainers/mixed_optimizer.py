"""Several optimisers as one, for networks whose parts want different ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer


class MixedOptimizer(Optimizer):
    """Optimisers with parameters of their own, which step one after the other, as one with all their groups.

    The order of `optimizers` is that of the groups. Groups and states are the optimisers' own, so that a learning rate
    that is set here holds there, and a checkpoint has them all.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for one in self.optimizers:
            one.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # PyTorch has made new groups and a new state
        self._share()

    def _share(self) -> None:
        begin = 0
        for one in self.optimizers:
            end = begin + len(one.param_groups)
            one.param_groups, one.state, begin = self.param_groups[begin:end], self.state, end
