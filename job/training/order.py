"""The order of a run's rows, of any epoch, without going through the epochs before."""

from collections.abc import Iterator

import torch
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """The stock order, but of any epoch: the permutation is a function of seed and epoch alone."""

    epoch = 0

    @classmethod
    def like(cls, stock: RepeatSampler) -> "EpochSampler":
        """With the settings of TRL's own sampler."""
        return cls(
            stock.data_source,
            stock.mini_repeat_count,
            stock.batch_size,
            stock.repeat_count,
            stock.shuffle,
            stock.seed,
        )

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(self.epoch):  # what stock has drawn by then
                torch.randperm(self.num_samples, generator=self.generator)
        yield from super().__iter__()
