"""Batches of similar length, the same for the same seed and epoch, so that a resumed run sees what
it would have seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from residency.models.running import model_inputs, padded
from residency.tasks.heads import IGNORED, Head
from residency.train.items import TrainingItem

POOL = 50
"""Batches that are sorted by length together: large enough to save padding, small enough to stay
random."""

BLANK = -1
"""Position of a row that teaches nothing: what a process reads when the others have the last rows
of an epoch."""


class LengthBatches:
    """Positions in batches of similar length; a new order each epoch. Of several processes each
    takes every n-th batch, so that together they make the effective batches that one process would
    make."""

    def __init__(
        self,
        lengths: Sequence[int],
        batch: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.lengths, self.batch, self.seed, self.epoch = list(lengths), batch, seed, epoch
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.lengths) / self.batch) / self.world)

    def __iter__(self) -> Iterator[list[int]]:
        mine = self.order(self.epoch())[self.rank :: self.world]
        yield from mine
        if len(mine) < len(self):
            yield [BLANK]

    def order(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch."""
        import numpy as np

        rng = np.random.default_rng((self.seed, epoch))
        shuffled = rng.permutation(len(self.lengths)).tolist()
        pool = self.batch * POOL
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), pool):
            near = sorted(shuffled[start : start + pool], key=lambda i: self.lengths[i])
            batches.extend(near[i : i + self.batch] for i in range(0, len(near), self.batch))
        short = [batch for batch in batches if len(batch) < self.batch]
        whole = [batch for batch in batches if len(batch) == self.batch]
        return [whole[i] for i in rng.permutation(len(whole))] + short

    def padding(self, epoch: int = 0) -> float:
        """Share of an epoch's tokens that are padding."""
        real = sum(self.lengths)
        padded = sum(
            max(self.lengths[i] for i in batch) * len(batch) for batch in self.order(epoch)
        )
        return 1 - real / padded if padded else 0.0


def collate(items: Sequence[TrainingItem], pad: int, head: Head, multiple: bool) -> dict[str, Any]:
    """Items as padded tensors: ``input_ids``, ``attention_mask`` [batch, length], ``labels``: per
    token, or for the whole."""
    import torch

    batch = model_inputs([item.ids for item in items], pad)
    targets: Any = [item.targets for item in items]
    if head.by_token:
        batch["labels"] = padded(targets, IGNORED)
    elif multiple:
        batch["labels"] = torch.tensor(targets)
    else:
        batch["labels"] = torch.tensor(targets, dtype=torch.long).squeeze(1)
    return batch
