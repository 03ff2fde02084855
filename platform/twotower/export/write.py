"""From a run to an export: what `twotower export RUN` does, without Ray."""

from dataclasses import dataclass
from pathlib import Path

from twotower.core.errors import InputError
from twotower.core.lease import Lease
from twotower.core.storage import MANIFEST, Store, commit
from twotower.export import ann, onnx_towers
from twotower.export.compare import compare
from twotower.export.contents import contents
from twotower.export.folder import MEND, file_sizes
from twotower.export.names import item_names
from twotower.models.embeddings.table import Served
from twotower.models.two_tower import TwoTower
from twotower.runtime.best import open_best, open_store
from twotower.runtime.run_folder import RECORD
from twotower.serving import files
from twotower.serving.reader import Export
from twotower.serving.tables import formula_bytes

FOLDER = "export"
"""Where an export goes unless told otherwise, inside the run."""

LOCK = ".lease"
"""Left by the lease on a folder of the user's choice."""

_OURS = {*files.REQUIRED, MANIFEST, ann.INDEX, *(f"{name}.onnx" for name in onnx_towers.NAMES)}

_RECALL_K, _RECALL_QUERIES = 50, 1000
"""The recall of an index is measured at this depth with the first queries of the query table."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """An embedding table in an export."""

    name: str
    kind: str
    values: int
    width: int
    bytes: int
    """Of its tensors; equal to the formula of its kind."""

    full_bytes: int
    """Of float32 rows for the same values."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: str
    files: dict[str, int]
    """Bytes by file."""

    scorer: str
    """`model.scorer`."""

    tables: tuple[TableSize, ...]
    onnx: dict[str, float]
    """Largest difference to torch by tower, where they were written as ONNX."""

    index: ann.Recall | None
    """Recall of the index, where one was built."""


def export(
    run: str | Path,
    output: str | Path | None = None,
    *,
    names: str | None = None,
    onnx: bool = False,
    index: str | None = None,
    device: str = "cpu",
) -> Exported:
    """Write the best checkpoint of a run as an export.

    Args:
        run: the run directory.
        output: where to; `export` in the run by default. An export that stands there is replaced,
            nothing else is.
        names: column of the raw catalogue with names for people; None = ids only.
        onnx: also write both towers as ONNX, checked against torch (extra `onnx`).
        index: also write a FAISS index, `flat`, `ivf_pq` or `hnsw`, with its recall (extra `ann`);
            not with `model.scorer: neumf`.
        device: where items are embedded.

    Raises:
        InputError: no run or no checkpoint stands there, its data has changed, another process
            writes to the output (or to the run, where that is inside), the output is something
            else, an extra is not installed, or the model's scores are none that an index finds.
        RunError: a check failed, or what would be written gives other vectors than torch, then what
            stood there before still does; or the storage can't be written to, then no export
            stands until the same command is run again.
    """
    kind = None if index is None else ann.check_kind(index)
    if onnx:
        onnx_towers.check_installed()
    target = Store(output) if output is not None else Store(run).child(FOLDER)
    _replaced(target)
    # What is refused is refused here: a lease leaves its file in the folder.
    scorer = open_best(run).config.model.scorer
    if kind is not None:
        ann.check_scorer(scorer)
    # Who writes into the run holds the run; any other is only read, it may be another's.
    with Lease(target if output is not None else open_store(run)):
        opened = open_best(run)
        replaced = _replaced(target)
        named = None
        if names is not None:
            named = item_names(opened.config.data, names, opened.prepared.item_ids().tolist())
        opened, model = opened.load_best(device)  # a run that is only read may still train
        made = contents(opened, model, named)
        reader = Export(made.files)
        compare(reader, opened, model, made.tables)
        extra, differences, recall = _extras(reader, model, onnx=onnx, index=kind)
        every = made.files | extra
        commit(target, every, layout=files.LAYOUT)
        for name in replaced - every.keys() - {MANIFEST}:
            target.delete(name)
    sizes = {name: len(data) for name, data in every.items()}
    tables = tuple(_size(name, served) for name, served in made.tables.items())
    return Exported(target.uri, sizes, scorer, tables, differences, recall)


def _replaced(target: Store) -> set[str]:
    """Files of the export that stands there, whole or not; InputError where something else does."""
    if target.exists(RECORD):
        raise InputError(f"{target.uri}: holds a run; choose another folder with -o")
    names = file_sizes(target).keys() - {LOCK}
    if other := sorted(names - _OURS):
        raise InputError(f"{target.uri}: holds something else ({other[0]!r}); {MEND}")
    if MANIFEST in names:
        try:
            files.parse_manifest(target.read_bytes(MANIFEST), oldest=1)
        except ValueError as error:
            raise InputError(f"{target.uri}/{MANIFEST}: {error}; {MEND}") from error
    return set(names)


def _extras(
    reader: Export, model: TwoTower, *, onnx: bool, index: ann.Kind | None
) -> tuple[dict[str, bytes], dict[str, float], ann.Recall | None]:
    """Files of the extras, and what was measured of them."""
    extra: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    recall = None
    if onnx:
        for name, (graph, difference) in onnx_towers.graphs(reader.model, model).items():
            extra[f"{name}.onnx"], differences[name] = graph, difference
    if index is not None:
        asked = list(reader.query_ids[:_RECALL_QUERIES])
        extra[ann.INDEX], recall = ann.build_index(
            index, reader.vectors, reader.embed_known(asked), _RECALL_K
        )
    return extra, differences, recall


def _size(name: str, served: Served) -> TableSize:
    table = served.table
    return TableSize(
        name,
        table.kind,
        table.num_values,
        table.width,
        table.payload_bytes(),
        formula_bytes("full", {}, table.num_values, table.width),
    )
