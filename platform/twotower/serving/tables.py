"""Embedding tables as they are served: one way to look up a row, by the trainer and by the reader.

The trainer evaluates a table through `ServedTable.rows`, and the export holds its tensors, so what
is served is bitwise what was evaluated. Sums have a fixed order and no matrix product: the same
bits on every machine.

Shape letters:
    V values    n ids asked for    E width of a row    H hashes    B buckets    r rank
    D columns of codes    K centroids of a column
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twotower.core.hashing import GOLDEN, bucket_of, mix
from twotower.core.types import FIRST_ID, Float32, Int64
from twotower.serving.packing import packed_bytes, unpack

Kind = Literal["full", "hashed", "low_rank", "scalar", "dpq"]
Settings: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int, ...]

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class ServedTable:
    """One table. ValueError where tensors, settings and sizes don't belong together."""

    kind: Kind
    num_values: int
    """V; ids are in [0, V), 0 and 1 are the reserved ones."""

    width: int
    """E."""

    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """JSON values by kind: hashed ``{"hashes": H, "buckets": B}``; low_rank ``{"rank": r}``;
    scalar ``{"bits": 4 or 8}``; dpq ``{"tiers": [{"rows": n, "centroids": [K_0, ...]}, ...]}``
    with the tiers in the order of their ids and D numbers each."""

    tensors: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    """By kind: full ``rows (V, E)``; hashed ``rows (2 + B, E)``; low_rank ``rows (V, r)`` and
    ``projection (r, E)``; scalar ``codes`` and ``step (E,)``; dpq ``centroids (D, K, E / D)`` and
    ``codes.0``, ... a tier. Codes are packed uint8, all else is float32."""

    def __post_init__(self) -> None:
        expected = shapes(self.kind, self.settings, self.num_values, self.width)
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        if found != expected:
            raise ValueError(f"a {self.kind} table has tensors {found}, {expected} was expected")
        for name, tensor in self.tensors.items():
            if tensor.dtype != (np.uint8 if name.startswith("codes") else np.float32):
                raise ValueError(f"a {self.kind} table has {name!r} of type {tensor.dtype}")

    def rows(self, ids: Int64) -> Float32:
        """Look up.

        Args:
            ids: int64 ``(n,)``, in any order.

        Returns:
            float32 ``(n, E)``, the caller's own.

        Raises:
            IndexError: an id is not in [0, V).
        """
        # As unsigned numbers, those below 0 are the largest of all.
        if len(ids) and ids.astype(np.uint64).max() >= self.num_values:
            raise IndexError(f"ids must be in [0, {self.num_values}), not {ids.min()}..{ids.max()}")
        return _LOOKUPS[self.kind](self, ids)

    def payload_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def formula_bytes(kind: Kind, settings: Settings, num_values: int, width: int) -> int:
    """Bytes that a table's tensors take, by formula; `ServedTable.payload_bytes` is equal to it."""
    match kind:
        case "full":
            return _FLOAT_BYTES * num_values * width
        case "hashed":
            return _FLOAT_BYTES * (FIRST_ID + settings["buckets"]) * width
        case "low_rank":
            return _FLOAT_BYTES * settings["rank"] * (num_values + width)
        case "scalar":
            return (num_values * width * settings["bits"] + 7) // 8 + _FLOAT_BYTES * width
        case "dpq":
            codes = [(tier["rows"] * sum(tier_bits(tier)) + 7) // 8 for tier in settings["tiers"]]
            return _FLOAT_BYTES * most_centroids(settings) * width + sum(codes)


def shapes(kind: Kind, settings: Settings, num_values: int, width: int) -> dict[str, Shape]:
    """Shape of every tensor of a table; ValueError where its settings can't be."""
    match kind:
        case "full":
            return {"rows": (num_values, width)}
        case "hashed":
            return {"rows": (FIRST_ID + settings["buckets"], width)}
        case "low_rank":
            rank = settings["rank"]
            return {"rows": (num_values, rank), "projection": (rank, width)}
        case "scalar":
            if settings["bits"] not in {4, 8}:
                raise ValueError(f"a scalar table has 4 or 8 bits, not {settings['bits']}")
            codes = packed_bytes(num_values, [settings["bits"]] * width)
            return {"codes": (codes,), "step": (width,)}
        case "dpq":
            return _dpq_shapes(settings, num_values, width)


def _dpq_shapes(settings: Settings, num_values: int, width: int) -> dict[str, Shape]:
    tiers = settings["tiers"]
    columns = {len(tier["centroids"]) for tier in tiers}
    if len(columns) != 1 or width % min(columns) or sum(t["rows"] for t in tiers) != num_values:
        raise ValueError(
            f"tiers {tiers}: they must have {num_values} rows in all, and equally many columns of "
            f"codes, a divisor of {width}"
        )
    (num,) = columns
    found: dict[str, Shape] = {"centroids": (num, most_centroids(settings), width // num)}
    for n, tier in enumerate(tiers):
        found[f"codes.{n}"] = (packed_bytes(tier["rows"], tier_bits(tier)),)
    return found


def tier_bits(tier: Mapping[str, Any]) -> list[int]:
    """Bits of each column of codes of a dpq tier."""
    return [(centroids - 1).bit_length() for centroids in tier["centroids"]]


def most_centroids(settings: Settings) -> int:
    """K: the most centroids that a column of any tier of a dpq table has."""
    return max(max(tier["centroids"]) for tier in settings["tiers"])


def buckets(ids: Int64, num_hashes: int, num_buckets: int) -> Int64:
    """Buckets of ids, int64 ``(n, H)``: hash h is SplitMix64's (h + 1)-th number of seed id."""
    words = ids.astype(np.uint64)[:, None]
    steps = GOLDEN * np.arange(1, num_hashes + 1, dtype=np.uint64)
    return bucket_of(mix(words + steps), num_buckets)


def _full(table: ServedTable, ids: Int64) -> Float32:
    return table.tensors["rows"][ids]


def _hashed(table: ServedTable, ids: Int64) -> Float32:
    """Reserved ids have rows of their own; any other is the sum of its buckets' rows."""
    rows = table.tensors["rows"]
    bucket_nH = buckets(ids, table.settings["hashes"], table.settings["buckets"]) + FIRST_ID
    known = ids >= FIRST_ID
    summed = rows[np.where(known, bucket_nH[:, 0], ids)]
    for h in range(1, bucket_nH.shape[1]):
        if known.all():
            summed += rows[bucket_nH[:, h]]
        else:
            summed[known] += rows[bucket_nH[known, h]]
    return summed


def _low_rank(table: ServedTable, ids: Int64) -> Float32:
    """A loop and no matrix product, whose order of additions is its library's."""
    narrow, projection = table.tensors["rows"][ids], table.tensors["projection"]
    summed = np.zeros((len(ids), table.width), dtype=np.float32)  # 0 + -0 is 0, as sums of bags are
    for j in range(len(projection)):
        summed += narrow[:, j : j + 1] * projection[j]
    return summed


def _scalar(table: ServedTable, ids: Int64) -> Float32:
    bits = table.settings["bits"]
    found = unpack(table.tensors["codes"], ids, [bits] * table.width).astype(np.float32)
    found -= np.float32(1 << (bits - 1))
    found *= table.tensors["step"]
    return found


def _dpq(table: ServedTable, ids: Int64) -> Float32:
    """The centroids that a row's codes name, one after the other."""
    centroids = table.tensors["centroids"]
    columns, most, part = centroids.shape
    tiers, start = table.settings["tiers"], 0
    codes = np.empty((len(ids), columns), dtype=np.uint16)
    for n, tier in enumerate(tiers):
        packed, bits = table.tensors[f"codes.{n}"], tier_bits(tier)
        if len(tiers) == 1:
            codes = unpack(packed, ids, bits)
            break
        here = np.flatnonzero((ids >= start) & (ids < start + tier["rows"]))
        if len(here):
            codes[here] = unpack(packed, ids[here] - start, bits)
        start += tier["rows"]
    # One gather for all tiers: rows are larger than codes. `clip` spares a look at each place, none
    # of which is out: what is read from files is looked at once (`checks.check_tables`).
    flat, base = centroids.reshape(-1, part), np.arange(columns, dtype=np.int64) * most
    return np.take(flat, codes + base, axis=0, mode="clip").reshape(len(ids), table.width)


_LOOKUPS = {
    "full": _full,
    "hashed": _hashed,
    "low_rank": _low_rank,
    "scalar": _scalar,
    "dpq": _dpq,
}
