"""The debian experiment again in plain PyTorch: it shares nothing with the package but prepared files.

    python tests/reference/plain_torch.py PREPARED [--cfm] [--seed 0] [--epochs 20] ...

Slow and obvious on purpose: one nn.EmbeddingBag a feature, dense torch.optim.Adagrad, cross_entropy,
torch's own random numbers. What it must agree with is the published numbers, within seeds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import nn

Bag = tuple[torch.Tensor, torch.Tensor]  # values, offsets (rows + 1)


class Table:
    """A prepared table of features: a bag of ids a row and feature."""

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path)
        self.rows = table.num_rows
        self.bags: dict[str, Bag] = {}
        for name in [n for n in table.column_names if n.startswith("f.")]:
            column = table[name].combine_chunks()
            if hasattr(column, "offsets"):
                bag = (
                    column.flatten().to_numpy(),
                    np.asarray(column.offsets) - column.offsets[0].as_py(),
                )
            else:
                bag = (column.to_numpy(), np.arange(self.rows + 1))
            values, offsets = (torch.from_numpy(x.astype(np.int64)) for x in bag)
            self.bags[name[2:]] = values, offsets
        self.extra = {n: table[n].to_numpy() for n in table.column_names if not n.startswith("f.")}

    def take(self, name: str, rows: torch.Tensor) -> Bag:
        values, offsets = self.bags[name]
        starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
        ends = lengths.cumsum(0)
        shift = torch.repeat_interleave(starts - (ends - lengths), lengths)
        return values[torch.arange(len(shift)) + shift], torch.cat(
            [torch.zeros(1, dtype=torch.int64), ends]
        )


class Tower(nn.Module):
    """Mean-pooled features, concatenated, through an MLP, to the unit sphere."""

    def __init__(
        self, tables: dict[str, nn.Embedding], table: Table, a: argparse.Namespace
    ) -> None:
        super().__init__()
        self.tables, self.table, self.names = tables, table, list(table.bags)
        self.registered = nn.ModuleDict(tables)
        self.mlp = nn.Sequential(
            nn.Linear(a.embed * len(self.names), a.hidden), nn.ReLU(), nn.Linear(a.hidden, a.out)
        )

    def forward(
        self,
        rows: torch.Tensor,
        masked: frozenset[str] = frozenset(),
        drop: float = 0.0,
        known: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        parts = []
        for name in self.names:
            weight = self.tables[name].weight
            values, offsets = self.table.take(name, rows)
            row_of = torch.repeat_interleave(torch.arange(len(rows)), offsets.diff())
            keep = torch.ones(len(values), dtype=torch.bool)
            if name in masked:
                keep[:] = False
            elif drop and name in MULTI:
                keep = torch.rand(len(values)) >= drop
            values, row_of = values[keep], row_of[keep]
            if known is not None:
                values = torch.where(known[name][values], values, 0)
            count = torch.bincount(row_of, minlength=len(rows))
            empty = torch.nonzero(count == 0)[:, 0]
            values, row_of = (
                torch.cat([values, torch.zeros_like(empty)]),
                torch.cat([row_of, empty]),
            )
            summed = torch.zeros(len(rows), weight.shape[1]).index_add(0, row_of, weight[values])
            parts.append(summed / count.clamp(min=1)[:, None])
        return F.normalize(self.mlp(torch.cat(parts, 1)), dim=1)


MULTI: set[str] = set()


def softmax(
    x: torch.Tensor, y: torch.Tensor, same: torch.Tensor, tau: float, weight: torch.Tensor
) -> torch.Tensor:
    return cross_entropy(x @ y.T / tau, same, weight)


def cross_entropy(logits: torch.Tensor, same: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    logits = logits.masked_fill(same & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    loss = F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")
    return (loss * weight).sum() / weight.sum()


def pairs(prepared: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    found = [
        pq.read_table(p, columns=["query", "item"])
        for p in sorted((prepared / "pairs").glob(f"{part}-*.parquet"))
    ]
    query, item = (np.concatenate([t[c].to_numpy() for t in found]) for c in ("query", "item"))
    return query.astype(np.int64), item.astype(np.int64)


def recall(
    model: dict[str, Tower], prepared: Path, part: str, known: dict[str, torch.Tensor], k: int = 50
) -> float:
    query, item = pairs(prepared, part)
    seen = [
        pairs(prepared, p) for p in (["train"] if part == "validation" else ["train", "validation"])
    ]
    with torch.no_grad():
        items = torch.cat(
            [
                model["item"](r, known=known)
                for r in torch.arange(model["item"].table.rows).split(4096)
            ]
        )
        hits = []
        for rows in torch.from_numpy(np.unique(query)).split(1024):
            scores = model["query"](rows, known=known) @ items.T
            place = {int(r): i for i, r in enumerate(rows)}
            for q, i in seen:
                inside = np.isin(q, rows.numpy())
                scores[[place[int(r)] for r in q[inside]], i[inside]] = -2
            own = torch.from_numpy(model["query"].table.extra["item"].astype(np.int64))[rows]
            scores[torch.arange(len(rows))[own >= 0], own[own >= 0]] = -2
            top = scores.topk(k).indices.numpy()
            for q, found in zip(rows.numpy(), top, strict=True):
                truth = set(item[query == q].tolist())
                hits.append(len(truth & set(found.tolist())) / len(truth))
    return float(np.mean(hits))


def run(a: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(a.seed)
    prepared = Path(a.prepared)
    item_table, query_table = Table(prepared / "items.parquet"), Table(prepared / "queries.parquet")
    MULTI.update(n for n, (_, offsets) in item_table.bags.items() if (offsets.diff() != 1).any())
    tables: dict[str, nn.Embedding] = {}
    for name, (values, _) in item_table.bags.items():
        rows = 1 + int(max(values.max(), query_table.bags[name][0].max()))
        tables[name] = nn.Embedding(rows, a.embed)
        nn.init.normal_(tables[name].weight, std=a.init)
        tables[name].weight.data[0] = 0
    model = {"query": Tower(tables, query_table, a), "item": Tower(tables, item_table, a)}
    params = list({id(p): p for tower in model.values() for p in tower.parameters()}.values())
    optimizer = torch.optim.Adagrad(params, lr=a.lr)
    names, mi = list(item_table.bags), json.loads((prepared / "mi.json").read_text())
    order = np.array(
        [
            [mi["raw"][mi["features"].index(x)][mi["features"].index(y)] for y in names]
            for x in names
        ]
    )
    log = [
        pq.read_table(p, columns=["query", "item", "weight"])
        for p in sorted((prepared / "train").glob("*.parquet"))
    ]
    q, i, w = (
        torch.from_numpy(np.concatenate([t[c].to_numpy() for t in log]))
        for c in ("query", "item", "weight")
    )
    own, touched = (
        torch.from_numpy(query_table.extra["item"].astype(np.int64)),
        {n: torch.zeros(tables[n].num_embeddings, dtype=torch.bool) for n in names},
    )
    count = torch.bincount(i.long(), minlength=item_table.rows)
    log_q = (count.clamp(min=1) / len(i)).log() * a.logq
    for _ in range(a.epochs):
        for batch in torch.randperm(len(q)).split(a.batch):
            x, y = q[batch].long(), i[batch].long()
            same = (y[:, None] == y[None, :]) | (own[x][:, None] == y[None, :])
            logits = model["query"](x) @ model["item"](y).T / a.tau - log_q[y]
            loss = cross_entropy(logits, same, w[batch].float())
            if a.cfm:
                m, k = a.masked, len(names)
                seed = int(torch.randint(k, ()))
                ranked = [f for f in np.argsort(-order[seed], kind="stable") if f != seed]
                hidden = frozenset(names[f] for f in [seed, *ranked[: m - 1]])
                z = torch.randint(item_table.rows, (a.batch,))
                first = model["item"](z, masked=hidden, drop=a.drop)
                second = model["item"](z, masked=frozenset(names) - hidden, drop=a.drop)
                loss = loss + a.alpha * softmax(
                    first, second, z[:, None] == z[None, :], a.ssl_tau, torch.ones(len(z))
                )
            optimizer.zero_grad()
            loss.backward()
            for name in names:
                gradient = tables[name].weight.grad
                assert gradient is not None
                touched[name] |= gradient.abs().sum(1) > 0
            optimizer.step()
    return {part: recall(model, prepared, part, touched) for part in ("validation", "test")}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser()
    p.add_argument("prepared")
    p.add_argument("--cfm", action="store_true")
    for name, value in {
        "seed": 0,
        "epochs": 12,
        "batch": 1024,
        "embed": 32,
        "hidden": 256,
        "out": 64,
        "masked": 5,
        "lr": 0.01,
        "tau": 0.07,
        "logq": 1,
        "init": 0.05,
        "alpha": 0.3,
        "ssl_tau": 0.1,
        "drop": 0.1,
    }.items():
        p.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return p.parse_args(argv)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(arguments())) + "\n")
