import json
from dataclasses import replace

import pytest

from twotower.core.config import Eval
from twotower.core.errors import InputError
from twotower.evaluation.protocol import Certificate, Setting, certify, require_equal

SETTING = Setting(
    part="test",
    split={"kind": "random", "seed": 1},
    pairs_digest="aa",
    candidates_digest="bb",
    subject={"checkpoint": "c1", "seed": 0},
)


def test_equal_protocols_compare_whatever_the_subject() -> None:
    other = replace(SETTING, subject={"checkpoint": "c2", "fraction": 0.1})
    runs = {"a": certify(SETTING, Eval()), "b": certify(other, Eval())}
    require_equal(runs)
    require_equal({})


@pytest.mark.parametrize(
    ("setting", "config", "field"),
    [
        (replace(SETTING, part="validation"), Eval(), "part"),
        (replace(SETTING, split={"kind": "random", "seed": 2}), Eval(), "split.seed"),
        (replace(SETTING, split={"kind": "time"}), Eval(), "split.kind"),
        (replace(SETTING, split={"kind": "random", "seed": 1, "by": "x"}), Eval(), "split.by"),
        (replace(SETTING, pairs_digest="ab"), Eval(), "pairs"),
        (replace(SETTING, candidates_digest="ab"), Eval(), "candidates"),
        (SETTING, Eval(filter_seen=False), "filter"),
        (SETTING, Eval(k=(10, 50, 100)), "k"),
        (SETTING, Eval(slices=("head", "tail")), "slices.torso"),
    ],
)
def test_the_first_field_that_differs_is_named(setting: Setting, config: Eval, field: str) -> None:
    runs = {"first": certify(SETTING, Eval()), "second": certify(setting, config)}
    with pytest.raises(InputError, match=rf"first and second .*protocol\.{field} is ") as error:
        require_equal(runs)
    assert error.value.exit_code == 2


def test_certificates_survive_json() -> None:
    written = certify(SETTING, Eval())
    read = Certificate.parse(json.loads(json.dumps(written.document())))
    require_equal({"written": written, "read": read})
    assert read.subject == written.subject


def test_a_cut_certificate_is_refused() -> None:
    with pytest.raises(InputError, match="protocol missing"):
        Certificate.parse({"subject": {}})


def test_filter_says_which_positives_were_removed() -> None:
    assert certify(SETTING, Eval()).protocol["filter"] == "train and validation positives"
    validation = certify(replace(SETTING, part="validation"), Eval())
    assert validation.protocol["filter"] == "train positives"
