"""TorchRec on W1: fused embedding bags (fbgemm's CPU kernels), updated in the backward pass.

The tables have row-wise Adagrad; the towers and the loss are plain PyTorch.
The file isn't called torchrec.py, which would hide the package from itself.
"""
# pyright: reportMissingImports=false
# It runs in an environment of its own, torchrec_fused.txt.

import common
import fbgemm_gpu
import numpy as np
import torch
import torchrec
from numpy.typing import NDArray
from torch_parts import plain_loss, tower
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim import RowWiseAdagrad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def tables(columns: dict[str, common.Column]) -> FusedEmbeddingBagCollection:
    """One mean-pooled table a feature."""
    return FusedEmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=f"table_{name}",
                embedding_dim=common.EMBED_DIM,
                num_embeddings=column.distinct,
                feature_names=[name],
                pooling=PoolingType.MEAN,
            )
            for name, column in columns.items()
        ],
        optimizer_type=RowWiseAdagrad,
        optimizer_kwargs={"lr": common.LEARNING_RATE},
        device=torch.device("cpu"),
    )


def jagged(data: common.Data, rows: NDArray[np.int64]) -> KeyedJaggedTensor:
    """The batch's features of both sides."""
    parts = [column.take(rows) for column in data.query.values()]
    parts += [column.take(data.clicked[rows]) for column in data.item.values()]
    lengths, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return KeyedJaggedTensor(
        keys=[*data.query, *data.item],
        values=torch.from_numpy(values).long(),
        lengths=torch.from_numpy(lengths).long(),
    )


def main() -> None:
    """Time the steps and print the figures."""
    a = common.arguments("torchrec_fused", bf16=True)
    torch.set_num_threads(a.threads)
    data = common.read(a.folder)
    bags = tables({**data.query, **data.item})
    towers = (tower(len(data.query)), tower(len(data.item)))
    dense = [weight for part in towers for weight in part.parameters()]
    optimiser = torch.optim.Adagrad(dense, lr=common.LEARNING_RATE)
    rows = common.batches(len(data.clicked), a.batch)

    def step() -> float:
        pooled = bags(jagged(data, next(rows)))
        query, item = (
            torch.cat([pooled[name] for name in side], 1) for side in (data.query, data.item)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
            loss = plain_loss(query, item, towers, ssl=a.ssl)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    common.report(a, common.time_steps(step, a), [torch, torchrec, fbgemm_gpu])


if __name__ == "__main__":
    main()
