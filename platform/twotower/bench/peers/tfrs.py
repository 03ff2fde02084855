"""TensorFlow Recommenders on W1: `tfrs.tasks.Retrieval` over `tf.data`, in float32.

Lists are padded and averaged by Keras; Adagrad is Keras's legacy one, which updates touched rows
only, element by element. The joins of a batch are whole-batch gathers, not work a row.
"""
# pyright: reportMissingImports=false
# It runs in an environment of its own, tfrs.txt.

import os
from collections.abc import Iterator
from typing import Any

import common

# TensorFlow reads both when it is imported.
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tensorflow-recommenders needs Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_recommenders as tfrs

keras = tf.keras


class Tower(keras.Model):
    """Embeddings of one side's features, concatenated, and the tower above them."""

    def __init__(self, columns: dict[str, common.Column]) -> None:
        super().__init__()
        self.columns = columns
        self.tables = {
            name: keras.layers.Embedding(
                column.distinct + 1, common.EMBED_DIM, mask_zero=column.most > 1
            )
            for name, column in columns.items()
        }
        self.mean = keras.layers.GlobalAveragePooling1D()
        dense = [keras.layers.Dense(width, activation="relu") for width in common.HIDDEN]
        self.mlp = keras.Sequential([*dense, keras.layers.Dense(common.OUT_DIM)])

    def embed(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Features (B, most values), 0 padded, to (B, features * EMBED_DIM)."""
        parts = []
        for name, column in self.columns.items():
            if column.most == 1:
                parts.append(self.tables[name](batch[name][:, 0]))
            else:
                parts.append(self.mean(self.tables[name](batch[name])))
        return tf.concat(parts, 1)

    def encode(self, embedded: tf.Tensor) -> tf.Tensor:
        """From the embeddings to unit vectors (B, OUT_DIM)."""
        return tf.math.l2_normalize(self.mlp(embedded), axis=1)


class TwoTower(tfrs.Model):
    """Both towers and the retrieval task, with a second one for the masked views."""

    def __init__(self, data: common.Data, *, ssl: bool) -> None:
        super().__init__()
        self.query_tower, self.item_tower = Tower(data.query), Tower(data.item)
        self.task, self.ssl_task = _task(common.TEMPERATURE), _task(common.SSL_TEMPERATURE)
        self.ssl = ssl

    def compute_loss(self, batch: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:  # noqa: ARG002 - tfrs's signature
        """Loss of one batch, averaged over it."""
        query = self.query_tower.encode(self.query_tower.embed(batch))
        embedded, encode = self.item_tower.embed(batch), self.item_tower.encode
        loss = self.task(query, encode(embedded), compute_metrics=False)
        if self.ssl:
            shape = (len(embedded), len(self.item_tower.columns))
            masked = tf.argsort(tf.random.uniform(shape), axis=1) < common.MASKED
            masked = tf.repeat(tf.cast(masked, tf.float32), common.EMBED_DIM, axis=1)
            one, other = encode(embedded * (1 - masked)), encode(embedded * masked)
            loss += common.SSL_WEIGHT * self.ssl_task(one, other, compute_metrics=False)
        return loss


def _task(temperature: float) -> tfrs.tasks.Retrieval:
    mean = keras.losses.CategoricalCrossentropy(from_logits=True)
    return tfrs.tasks.Retrieval(loss=mean, temperature=temperature)


def endless(data: common.Data, batch: int) -> Iterator[dict[str, tf.Tensor]]:
    """Shuffled full batches, for ever: a dictionary of features (batch, most values)."""
    query = {name: tf.constant(column.padded()) for name, column in data.query.items()}
    item = {name: tf.constant(column.padded()) for name, column in data.item.items()}
    clicked = tf.constant(data.clicked)

    def join(rows: tf.Tensor) -> dict[str, tf.Tensor]:
        items = tf.gather(clicked, rows)
        return {name: tf.gather(table, rows) for name, table in query.items()} | {
            name: tf.gather(table, items) for name, table in item.items()
        }

    rows = tf.data.Dataset.range(len(data.clicked)).shuffle(200_000)
    rows = rows.batch(batch, drop_remainder=True).repeat()
    return iter(rows.map(join, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))


def main() -> None:
    """Time the steps and print the figures."""
    a = common.arguments("tfrs")
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    data = common.read(a.folder)
    model, ahead = TwoTower(data, ssl=a.ssl), endless(data, a.batch)
    # The accumulator starts at 0, as everywhere here; Keras would start it at 0.1.
    optimiser: Any = keras.optimizers.legacy.Adagrad(
        common.LEARNING_RATE, initial_accumulator_value=0.0, epsilon=1e-8
    )

    @tf.function
    def train(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch)
        weights = model.trainable_variables
        optimiser.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    common.report(a, common.time_steps(lambda: float(train(next(ahead)).numpy()), a), [tf, tfrs])


if __name__ == "__main__":
    main()
