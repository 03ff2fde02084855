"""Naive PyTorch on W1, the anchor: what one writes first.

`nn.EmbeddingBag` with dense gradients, `torch.optim.Adagrad` over everything, and the default
`DataLoader` over tensors in memory.
"""

from collections.abc import Iterator

import common
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch_parts import plain_loss, tower


class TwoTower(nn.Module):
    """Tables and towers of both sides."""

    def __init__(self, data: common.Data) -> None:
        super().__init__()
        self.query_tables, self.item_tables = _tables(data.query), _tables(data.item)
        self.towers = nn.ModuleList([tower(len(data.query)), tower(len(data.item))])

    def forward(self, columns: list[Tensor], *, ssl: bool) -> Tensor:
        """Loss of one batch; a column is (B, most values), 0 padded, query features first."""
        ahead = iter(columns)
        query, item = (
            torch.cat([table(next(ahead)) for table in tables], 1)
            for tables in (self.query_tables, self.item_tables)
        )
        return plain_loss(query, item, (self.towers[0], self.towers[1]), ssl=ssl)


def _tables(columns: dict[str, common.Column]) -> nn.ModuleList:
    return nn.ModuleList(
        [
            nn.EmbeddingBag(column.distinct + 1, common.EMBED_DIM, mode="mean", padding_idx=0)
            for column in columns.values()
        ]
    )


def endless(data: common.Data, batch: int) -> Iterator[list[Tensor]]:
    """Shuffled full batches, for ever; the items' features are joined to the rows beforehand."""
    query = [torch.from_numpy(column.padded()).long() for column in data.query.values()]
    item = (column.padded()[data.clicked] for column in data.item.values())
    dataset = TensorDataset(*query, *(torch.from_numpy(column).long() for column in item))
    while True:
        yield from DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)


def main() -> None:
    """Time the steps and print the figures."""
    a = common.arguments("torch_naive")
    torch.set_num_threads(a.threads)
    data = common.read(a.folder)
    model, ahead = TwoTower(data), endless(data, a.batch)
    optimiser = torch.optim.Adagrad(model.parameters(), lr=common.LEARNING_RATE)

    def step() -> float:
        loss = model(next(ahead), ssl=a.ssl)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    common.report(a, common.time_steps(step, a), [torch])


if __name__ == "__main__":
    main()
