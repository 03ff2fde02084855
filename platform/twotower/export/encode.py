"""Columns of a catalogue to what a tower reads, cast as preparing casts them."""

import numpy as np
import pyarrow as pa

from twotower.core.types import Float32, Ragged
from twotower.data import columns
from twotower.data.columns import Coded
from twotower.serving.features import FeatureSpec, Vocabulary, filled
from twotower.serving.sides import Encoded, Side


def encode_batch(batch: pa.RecordBatch, side: Side) -> Encoded:
    """The features of a tower; a column that the batch lacks is missing values.

    Raises:
        InputError: a number is too far from the training data's.
    """
    bags: dict[str, Ragged] = {}
    numbers: dict[str, Float32] = {}
    for spec in side.features:
        place = batch.schema.get_field_index(spec.column)
        column = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows)
        if spec.kind == "dense":
            numbers[spec.name] = spec.scaled(columns.numbers(column))
        else:
            bags[spec.name] = _bags(column, spec, side.vocabularies[spec.vocabulary])
    return Encoded(batch.num_rows, bags, numbers)


def _bags(column: pa.Array, spec: FeatureSpec, known: Vocabulary) -> Ragged:
    """Ids of each row, each distinct value looked up once."""
    if spec.kind == "multi" and not pa.types.is_null(column.type):
        lengths, coded = columns.bags(column, spec.max_values)
    else:
        coded = columns.factorize(column)
        lengths = (coded.codes >= 0).astype(np.int64)
        coded = Coded(coded.codes[coded.codes >= 0], coded.values)
    ids = known.encode(coded.values.to_pylist())
    return filled(Ragged.from_lengths(lengths, ids[coded.codes]))
