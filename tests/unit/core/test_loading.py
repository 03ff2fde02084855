"""A bad config can't exist, and says which key is wrong."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError
from twotower.core.loading import build_config, load_config, parse_yaml, with_overrides
from twotower.core.records import differences, identity, run_name

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
DEBIAN = ROOT / "configs" / "debian.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_is_a_lab_record(path: Path) -> None:
    assert load_config(path).config.name == path.stem
    header = path.read_text(encoding="utf-8")
    for entry in ("Source:", "Command:", "Cost:", "Expected:", "Last true:"):
        assert f"# {entry}" in header


BAD = {
    "ssl.wieght=1": r"ssl\.wieght: unknown key; did you mean 'weight'",
    "ssl.weight=abc": r"ssl\.weight: .*valid number, got 'abc'",
    "ssl.weight='1'": r"ssl\.weight: .*valid number",
    "ssl.weight=.nan": r"ssl\.weight: .*finite",
    "ssl.temperature=0": r"ssl\.temperature: .*greater than 0, got 0",
    "loss.temperature=-1": r"loss\.temperature: .*greater than 0",
    "ssl.mask_rate=1.0": r"ssl\.mask_rate: .*less than 1, got 1\.0",
    "ssl.dropout_rate=1": r"ssl\.dropout_rate: .*less than 1",
    "train.batch_size=100": r"train\.batch_size: 100 is not a multiple of data\.lanes \(64\); take 64 or 128",
    "train.num_workers=65": r"train\.num_workers: 65 workers, but data\.lanes is 64",
    "train.threads=true": r"train\.threads: .*valid integer, got True",
    "train.num_epochs=null": r"train\.num_epochs: .*valid integer",
    "train.max_failures=-1": r"train\.max_failures: .*greater than or equal to 0",
    "name=../x": r"name: ",
    "name=a..b": r"name: must not hold '\.\.'",
    "eval.k=[50, 10]": r"eval\.k: cut-offs must be distinct and rising",
    "eval.select=recall@7": r"eval\.select: 'recall@7' is not measured",
    "data.split.kind=time": r"data\.split\.kind: time needs `interactions\.time`",
    "data.split.kind=leave_last": r"data\.split\.kind: leave_last needs `interactions\.time`",
    "data.min_query_pairs=0": r"data\.min_query_pairs: .*greater than or equal to 1",
    "model.scorer_hidden=[]": r"model\.scorer_hidden: .*at least 1",
    "model.history_blocks=2": r"model\.history_blocks: 2 is for `history: attention`",
    "data.split.kind=by_group": r"data\.split\.column: ",
    "data.features.query.package.share=nope": r"data\.features\.query\.package\.share: no item feature 'nope'",
    "data.features.context={k: {kind: categorical, share: nope}}": r"data\.features\.context\.k\.share: no item feature 'nope'",
    "data.features.item.size={kind: dense, hash_buckets: 9}": r"data\.features\.item\.size\.hash_buckets: is not read by a dense feature; leave it out",
    "data.features.item.source.max_values=3": r"data\.features\.item\.source\.max_values: is not read by a categorical",
    "data.features.query.tags.min_count=2": r"data\.features\.query\.tags\.min_count: is that of the item feature 'tags'",
    "data.features.query.past={kind: history, share: package, column: x}": r"past\.column: is not read by a history",
    "data.features.query.past={kind: history, share: package, max_size: 9}": r"past\.max_size: is that of the item feature 'package'",
    "loss.spread_out_weight=7": r"loss\.spread_out_weight: 7 is for `spread_out: softmax or squared`, not none",
    "model.scorer_hidden=[9]": r"model\.scorer_hidden: \(9,\) is for `scorer: neumf`, not cosine",
    "loss.logq_rate=0.5": r"loss\.logq_rate: 0\.5 is for `logq: streaming`, not counted",
    "data.features.item.tags.kind=bag": r"data\.features\.item\.tags\.kind: ",
    "data.queries=users": r"data\.queries: ",
    "ssl=3": r"ssl: .*object, got 3",
    "ssl.weight.x=1": r"ssl\.weight",
    "nonsense=1": r"nonsense: unknown key",
    "train.batch_size=[1": r"train\.batch_size: not valid YAML",
    "=1": r"dotted\.path=value",
}


@pytest.mark.parametrize("override", BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=BAD[override]):
        load_config(DEBIAN, [override])


MULTI = ["name_words", "summary_words", "tags"]
TOGETHER = [
    (["ssl.weight=1", "model.scorer=gmf"], r"ssl\.weight: .*they are gmf and mlp"),
    (["ssl.weight=1", "model.towers=identity"], r"ssl\.weight: .*cosine and identity"),
    (["loss.spread_out=softmax", "model.scorer=neumf"], r"loss\.spread_out: .*it is neumf"),
    (["model.scorer=neumf", "model.out_dim=33"], r"model\.out_dim: .*33 is odd"),
    (["model.towers=identity", "model.tower_init=aligned"], r"model\.tower_init: .*no weights"),
    (["model.tower_init=aligned", "model.shared_tables=false"], r"no common table"),
    (
        ["model.towers=identity", "data.features.item.size={kind: dense}"],
        r"one width, the item's is 289 and the query's 288",
    ),
    (
        [
            "model.towers=identity",
            "model.scorer=neumf",
            "data.features.item.size={kind: dense}",
            "data.features.query.size={kind: dense}",
        ],
        r"289 is odd",
    ),
    (
        [
            "data.features.query.past={kind: history, share: package}",
            "data.features.query.seen={kind: history, share: package}",
        ],
        r"\['past', 'seen'\] are histories",
    ),
    (
        [
            "data.features.item.size={kind: dense}",
            "data.features.context={k: {kind: categorical, share: size}}",
        ],
        r"data\.features\.context\.k\.share: a dense feature has no vocabulary",
    ),
    (
        ["data.undirected=true", "data.split.kind=per_query"],
        r"data\.split\.kind: per_query can't split undirected",
    ),
    (
        ["data.undirected=true", "data.split.kind=leave_last", "data.interactions.time=ts"],
        r"data\.split\.kind: leave_last can't split undirected",
    ),
    (["train.weight_decay=0.5"], r"train\.weight_decay: 0\.5 is for `optimizer: adamw`"),
    (
        ["ssl.weight=1", "ssl.masking=rfm", "ssl.mi=normalised"],
        r"ssl\.mi: .*`masking: cfm`, not rfm",
    ),
    (
        ["ssl.weight=1", "ssl.items=in_batch", "ssl.batch_size=64"],
        r"ssl\.batch_size: .*`items: unif",
    ),
    (
        [
            "ssl.weight=1",
            "ssl.masking=none",
            "ssl.dropout_rate=0.1",
            f"ssl.hidden_features={MULTI}",
        ],
        r"ssl\.masking: none makes two equal views.*multi-valued",
    ),
    (["model.history=attention"], r"model\.history: attention reads a history"),
    (["model.history=attention", "model.history_heads=5"], r"model\.history_heads: 5 does not"),
]


@pytest.mark.parametrize(("overrides", "words"), TOGETHER)
def test_keys_that_do_not_fit_each_other_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(DEBIAN, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.logq=streaming", "loss.logq_rate=0.5"],
        ["loss.spread_out=squared", "loss.spread_out_weight=7"],
        ["data.features.query.past={kind: history, share: package, max_values: 9}"],
        ["data.features.query.tags.max_values=9"],
        ["data.features.item.size={kind: dense, column: x, max_values: 64, min_count: 1}"],
        ["data.features.context={k: {kind: categorical, column: x, min_count: 3}}"],
    ],
)
def test_keys_that_are_read_or_at_their_default_are_taken(overrides: list[str]) -> None:
    load_config(DEBIAN, overrides)


def test_overrides_and_provenance() -> None:
    loaded = load_config(DEBIAN, ["ssl.weight=1e-1", "model.hidden=[64, 32]"])
    assert loaded.config.ssl.weight == 0.1
    assert loaded.config.model.hidden == (64, 32)
    assert loaded.provenance["ssl.weight"] == "--set"
    assert loaded.provenance["data.queries"] == "debian.yaml"
    assert loaded.provenance["data.features.item.tags.kind"] == "debian.yaml"
    assert loaded.provenance["ssl.temperature"] == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "stands twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: YAML tags"),
        ("b: 1\na: !!bool maybe", "line 2: YAML tags"),
        ("a: !!timestamp x", "YAML tags"),
        ("a: !!map [1]", "YAML tags"),
        ("!!str a: 1", "YAML tags"),
        ("a: ! x", "YAML tags"),
        ("a: \udcff", "not valid YAML: .*surrogates not allowed"),
        ("[" * 1000, "nested deeper"),
        ("a: [1\n", r"line 2"),
        ("1: a\n", "must be text"),
        ("x: " + "y" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_yaml_that_no_config_needs_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "x.yaml")


def test_yaml_reads_numbers_and_words_as_written() -> None:
    text = "{a: 1e-3, b: no, c: 2020-01-01, d: 010, e: 1_000, f: .5, g: true, h: null, i: -3}"
    assert parse_yaml(text, "x") == {
        "a": 1e-3, "b": "no", "c": "2020-01-01", "d": 10, "e": "1_000", "f": 0.5, "g": True, "h": None, "i": -3,
    }  # fmt: skip


def test_a_missing_file_offers_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*debian\.yaml"):
        load_config(ROOT / "configs" / "debain.yaml")


def test_a_resolved_config_is_a_fixed_point() -> None:
    config = load_config(DEBIAN, ["ssl.weight=1"]).config
    again = build_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))), "again")
    assert again == config


def test_the_id_is_hidden_by_the_column_it_reads() -> None:
    config = load_config(DEBIAN, ["ssl.hidden_features=id"]).config
    assert config.hidden_features() == ["package"]
    assert "package" not in config.maskable_features()
    listed = load_config(DEBIAN, ["ssl.hidden_features=[tags, source]"]).config
    assert listed.hidden_features() == ["tags", "source"]
    with pytest.raises(ConfigError, match=r"no item feature reads the id column 'nope'"):
        load_config(DEBIAN, ["ssl.weight=1", "ssl.hidden_features=id", "data.items.id=nope"])


def test_the_run_name_follows_what_changes_the_result_only() -> None:
    config = load_config(DEBIAN).config
    same = with_overrides(config, {"train.num_workers": 2, "storage.runs": "/elsewhere"})
    other = with_overrides(config, {"ssl.weight": 0.5})
    assert run_name(same) == run_name(config) != run_name(other)
    assert differences(identity(config), identity(other)) == ["ssl.weight: 0.0 -> 0.5"]


def broken_documents(count: int) -> list[tuple[str, Any]]:
    """Random breakages of a good config: an unknown key, or a value no field of that place takes."""
    draw = random.Random(0)
    documents: list[tuple[str, Any]] = []
    for _ in range(count):
        document = load_config(DEBIAN).config.model_dump(mode="json")
        section, path = document, []
        while True:
            key = draw.choice(sorted(section))
            path.append(key)
            if not isinstance(section[key], dict) or not section[key] or draw.random() < 0.2:
                break
            section = section[key]
        if draw.random() < 0.5:
            path[-1] = path[-1] + draw.choice("xyz") * draw.randint(1, 3)
        section[path[-1]] = draw.choice(
            [float("nan"), -1e308, {"a": {"b": 1}}, [[]], "\x00", [None], -7.5]
        )
        documents.append((path[-1], document))
    return documents


def test_300_broken_configs_each_name_the_key() -> None:
    for key, document in broken_documents(300):
        with pytest.raises(ConfigError) as caught:
            build_config(document, "x.yaml")
        assert key in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_field_is_documented() -> None:
    def check(schema: dict[str, Any]) -> None:
        for name, field in schema.get("properties", {}).items():
            assert "description" in field or "$ref" in field or "allOf" in field, name
        for below in schema.get("$defs", {}).values():
            check(below)

    check(ExperimentConfig.model_json_schema())
