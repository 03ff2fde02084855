"""Whether the runs of a ledger were measured by the rules of the code that reads them now."""

import json
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.records import differences
from twotower.evaluation.protocol import Setting, certify
from twotower.study.book import Book
from twotower.study.ledger import FILE, Ledger, Line
from twotower.study.load import Study
from twotower.study.rows import reference_lines


def require_todays(study: Study, ledger: Ledger, book: Book) -> None:
    """Refuse a study's runs that were measured otherwise than today's code measures.

    Metrics are made of ranks by today's code, so that lines which are alike are not enough. What
    only the data tells is left out; runs are held against it when it is read.

    Raises:
        InputError: names run, field and both values.
    """
    for cell in study.cells:
        for line in book.seed_lines(cell):
            _require(study, ledger, cell.config, line)
    for place, config in study.places().items():
        if (reference := book.reference_line(place)) is not None:
            for line in reference_lines(reference):
                _require(study, ledger, config, line)


def _require(study: Study, ledger: Ledger, config: ExperimentConfig, line: Line) -> None:
    if "protocol" not in line:  # it diverged
        return
    theirs: dict[str, Any] = ledger.noted(line["protocol"])
    setting = Setting(
        part="test",
        split=theirs.get("split"),
        pairs_digest=str(theirs.get("pairs")),
        candidates_digest=str(theirs.get("candidates")),
        fraction=config.data.fraction,
    )
    todays = json.loads(json.dumps(certify(setting, config.eval).protocol))
    if changed := differences(theirs, todays, "protocol"):
        raise InputError(
            f"{study.plan.folder}/{FILE}: run {line['id']} was not measured as today's code "
            f"measures, {changed[0]}; delete its line, so that it is made again, or check out the "
            "commit that it was made at"
        )
