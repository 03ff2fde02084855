"""The tables and claims of a study with made-up numbers, of the shape that a study writes.

Fit because the page reads nothing but these documents: tests and screenshots need their shape and
plausible sizes, not trained models. The numbers are drawn from a fixed seed and mean nothing.
"""

from typing import Any

import numpy as np

METRICS = {"map@10": 0.21, "map@50": 0.24, "recall@10": 0.55, "recall@50": 1.0}
SLICES = {"head": 1.3, "torso": 0.9, "tail": 0.5, "unseen": 0.12, "not_head": 0.62}
PRIMARY = ("recall@50", "tail_recall@50")
DATASETS = {
    "debian": (0.262, 63_465, 52_431),
    "wikispeedia": (0.412, 4_604, 21_803),
    "movietweetings": (0.121, 38_018, 60_283),
    "completejourney": (0.083, 92_339, 2_469),
}
FRACTIONS = (1.0, 0.1)
METHODS = {
    "baseline": ("Baseline", 0.0),
    "fd": ("FD", 0.004),
    "so": ("SO", 0.016),
    "rfm": ("RFM", 0.011),
    "rfm_no_compl": ("RFM_no_compl", 0.024),
    "cfm": ("CFM", 0.041),
    "no_masking": ("NoMasking", 0.009),
    "cfm_logq": ("CFM + logQ", 0.047),
}
REFERENCES = {"popularity": 0.36, "content": 0.62, "item_knn": 0.81}
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
CURVES = {"rfm": "RFM, both sizes", "rfm_no_compl": "RFM, both sizes"}
TABLE_BYTES = {"rfm": 1_200_000, "rfm_no_compl": 2_400_000, "cfm": 600_000}
"""Served tables that aren't full, on movietweetings only."""
FULL_BYTES, DENSE_BYTES = 8_000_000, 290_000
POWER = {
    "dataset": "debian",
    "fraction": 0.1,
    "method": "baseline",
    "metric": "recall@50",
    "margin": 0.02,
    "power": 0.9,
    "seeds": 5,
    "seeds_needed": 7,
}
SEEDS = [101, 102, 103, 104, 105]
UNDERTRAINED = {("debian", 0.1, "cfm"): 2}
FIRST_LOOK = {("wikispeedia", 0.1, "baseline"): 5, ("debian", 0.1, "cfm"): 1}
"""Runs with each mark, of a row."""

PAPER = {
    ("so", "baseline", "recall@10"): (0.022, 0.072),
    ("cfm", "baseline", "recall@10"): (0.061, 0.207),
    ("cfm", "baseline", "recall@50"): (0.041, 0.183),
    ("cfm", "so", "recall@50"): (0.027, 0.118),
    ("cfm", "baseline", "unseen_recall@50"): (0.079, None),
}
"""Relative gains of the paper on all train pairs and on a tenth."""

ENVIRONMENT = {
    "versions": {"python": "3.11.9", "torch": "2.13.0", "ray": "2.60.0"},
    "cpu": "Intel Xeon 2.1 GHz",
    "cpus": 2,
    "memory_gib": 7.8,
    "system": "Linux 6.8",
    "command": "twotower study configs/studies/paper.yaml",
}


def study_tables(seed: int = 5) -> dict[str, Any]:
    """`tables.json` of 4 datasets x 2 fractions x 8 methods, 3 references and 2 sweeps."""
    rng = np.random.default_rng(seed)
    rows = [
        row(rng, dataset, fraction, method)
        for dataset in DATASETS
        for fraction in FRACTIONS
        for method in (*METHODS, *REFERENCES)
    ]
    runs = [run for row_ in rows for run in runs_of(rng, row_)]
    return {
        "study": "paper",
        "title": "The paper's tables on open data",
        "date": "2026-11-22",
        "environment": {**ENVIRONMENT, "commit": "9f31c07be2d44a10"},
        "environments": [
            {**ENVIRONMENT, "id": "e1", "commit": "9f31c07be2d44a10"},
            {**ENVIRONMENT, "id": "e2", "commit": "41d0a9d2be2d44a1"},
            {**ENVIRONMENT, "id": "e3", "commit": "9f31c07be2d44a10", "cpu": "AMD EPYC"},
        ],
        "not_compared": [],
        "command": "twotower study configs/studies/paper.yaml",
        "complete": False,
        "runs_done": len(runs),
        "runs_total": len(runs) + 60,
        "core_seconds": sum(
            (r["core_seconds"] or 0.0) + (r["trial_core_seconds"] or 0.0) for r in rows
        ),
        "baseline": "baseline",
        "trials": 8,
        "metrics": list(METRICS),
        "slices": list(SLICES),
        "primary": list(PRIMARY),
        "methods": [
            {
                "name": name,
                "title": title,
                "set": {},
                "tuned": ["ssl.weight"],
                "from": None,
                "curve": CURVES.get(name),
            }
            for name, (title, _) in METHODS.items()
        ],
        "datasets": [facts(d, fraction) for d in DATASETS for fraction in FRACTIONS],
        "rows": rows,
        "contrasts": contrasts(rng, rows),
        "sweeps": sweeps(rng, rows),
        "power": [dict(POWER)],
        "paper": paper_gains(),
        "runs": runs,
    }


def paper_gains() -> list[dict[str, Any]]:
    """`paper`."""
    return [
        {
            "method": method,
            "against": against,
            "metric": metric,
            "fraction": fraction,
            "datasets": None,
            "gain": gain,
        }
        for (method, against, metric), gains in PAPER.items()
        for fraction, gain in zip(FRACTIONS, gains, strict=True)
        if gain is not None
    ]


def facts(dataset: str, fraction: float) -> dict[str, Any]:
    """One entry of `datasets`."""
    _, items, queries = DATASETS[dataset]
    kinds = [("name_words", "multi"), ("section", "categorical"), ("maintainer", "categorical")]
    return {
        "name": dataset,
        "fraction": fraction,
        "task": "item to item",
        "facts": {
            "items": items,
            "queries": queries,
            "train_pairs": round(queries * 6.3 * fraction),
            "test_pairs": round(queries * 1.1),
            "share_of_test_pairs_of_unseen_items": 0.034 / fraction,
            "split": "by time" if dataset == "movietweetings" else "random",
        },
        "features": [
            {"name": name, "kind": kind, "distinct": items // (7 + i), "filled": 1.0 - 0.07 * i}
            for i, (name, kind) in enumerate(kinds)
        ],
    }


def row(rng: np.random.Generator, dataset: str, fraction: float, method: str) -> dict[str, Any]:
    """One entry of `rows`."""
    is_reference = method in REFERENCES
    borrowed = "debian" if dataset == "completejourney" and not is_reference else None
    tuned = {"ssl.weight": float(rng.uniform(0.05, 2)), "loss.temperature": 0.07}
    kind = "reference" if is_reference else "borrowed" if borrowed else "tuned"
    return {
        "dataset": dataset,
        "fraction": fraction,
        "method": method,
        "kind": kind,
        "settings_from": borrowed,
        "settings": {} if is_reference else tuned,
        "seeds": [] if is_reference else SEEDS[:3] if method == "no_masking" else SEEDS,
        "metrics": {key: cell(rng, dataset, fraction, method, key) for key in keys()},
        "sizes": None if is_reference else sizes(dataset, method),
        "undertrained": UNDERTRAINED.get((dataset, fraction, method), 0),
        "first_look": FIRST_LOOK.get((dataset, fraction, method), 0),
        "missing": 1 if (dataset, method) == ("movietweetings", "rfm") else 0,
        "core_seconds": None if is_reference else float(rng.uniform(200, 500)),
        "trial_core_seconds": None if is_reference or borrowed else float(rng.uniform(400, 900)),
    }


def sizes(dataset: str, method: str) -> dict[str, Any]:
    """`sizes` of a row."""
    own = TABLE_BYTES.get(method, FULL_BYTES) if dataset == "movietweetings" else FULL_BYTES
    return {
        "tables": {},
        "table_bytes": own,
        "full_table_bytes": FULL_BYTES,
        "dense_bytes": DENSE_BYTES,
    }


def keys() -> list[str]:
    """Metric keys of a row."""
    return [*METRICS, *(f"{s}_{m}" for s in SLICES for m in ("recall@10", "recall@50"))]


def cell(
    rng: np.random.Generator, dataset: str, fraction: float, method: str, key: str
) -> dict[str, float]:
    """A mean with its interval: gains are larger at 10 % and in the tail, negative on one set."""
    part, _, metric = key.rpartition("_")
    level = DATASETS[dataset][0] * (0.55 if fraction < 1 else 1.0) * METRICS[metric]
    level *= SLICES.get(part, 1.0)
    gain = METHODS.get(method, ("", 0.0))[1] * (2.1 if fraction < 1 else 1.0)
    gain *= (2.4 if part == "tail" else 1.0) * (-0.7 if dataset == "wikispeedia" else 1.0)
    value = level * (1 + gain) * REFERENCES.get(method, 1.0) * (1 + 0.004 * rng.standard_normal())
    half = 0.02 * level
    return {"value": float(value), "low": float(value - half), "high": float(value + half)}


def contrasts(rng: np.random.Generator, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every trained method less the baseline in every metric, CFM less SO in the primary ones."""
    found = {(r["dataset"], r["fraction"], r["method"]): r for r in rows}
    pairs = [(method, "baseline", keys()) for method in METHODS if method != "baseline"]
    pairs.append(("cfm", "so", list(PRIMARY)))
    return [
        contrast(rng, found[d, f, against], found[d, f, method], metric)
        for d in DATASETS
        for f in FRACTIONS
        for method, against, metrics in pairs
        for metric in metrics
    ]


def contrast(
    rng: np.random.Generator, first: dict[str, Any], second: dict[str, Any], metric: str
) -> dict[str, Any]:
    """One entry of `contrasts`."""
    base, value = first["metrics"][metric]["value"], second["metrics"][metric]["value"]
    error, mean = 0.006 * base * float(rng.uniform(0.7, 1.6)), value - base
    is_primary = metric in PRIMARY and first["method"] == "baseline"
    p = float(np.exp(-0.8 * (mean / error) ** 2))
    p_holm = min(1.0, 14 * p) if is_primary else None
    return {
        "dataset": first["dataset"],
        "fraction": first["fraction"],
        "method": second["method"],
        "against": first["method"],
        "metric": metric,
        "first": base,
        "second": value,
        "mean": mean,
        "relative": mean / base,
        "relative_low": (mean - 2.1 * error) / base,
        "relative_high": (mean + 2.3 * error) / base,
        "low": mean - 2.2 * error,
        "high": mean + 2.2 * error,
        "p": p,
        "p_holm": p_holm,
        "df": 6.3,
        "boot_low": mean - 2.0 * error,
        "boot_high": mean + 2.0 * error,
        "seeds": len(second["seeds"]),
        "queries": DATASETS[first["dataset"]][2] // 4,
        "primary": is_primary,
        "significant": (p if p_holm is None else p_holm) < 0.05,
        **marks(first, second),
    }


def marks(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Marks of a difference or a claim."""
    runs = min(len(first["seeds"]), len(second["seeds"]))
    return {
        mark: {"method": second[mark], "against": first[mark], "runs": runs}
        for mark in ("undertrained", "first_look")
    }


def sweeps(rng: np.random.Generator, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two methods over the SSL weight, one over where SSL items come from."""
    found = {(r["dataset"], r["method"]): r for r in rows if r["fraction"] == 1.0}
    titles = {
        "figure_6": ("Weight of the self-supervised loss", "ssl.weight", WEIGHTS),
        "items": ("Uniform or in-batch items", "ssl.items", ("uniform", "in_batch")),
    }
    return [
        {
            "name": name,
            "title": title,
            "dataset": dataset,
            "fraction": 1.0,
            "method": method,
            "path": path,
            "points": [
                {
                    "value": v,
                    "seeds": 3,
                    "metrics": swept(rng, found[dataset, method], i),
                    "undertrained": 0,
                    "first_look": 2 if v == 10.0 else 0,
                }
                for i, v in enumerate(values)
            ],
            "baseline": found[dataset, "baseline"]["metrics"],
        }
        for name, (title, path, values) in titles.items()
        for dataset in ("debian", "wikispeedia")
        for method in (("cfm", "so") if name == "figure_6" else ("cfm",))
    ]


def swept(rng: np.random.Generator, row: dict[str, Any], place: int) -> dict[str, Any]:
    """Metrics at a point of a sweep: highest in the middle."""
    factor = 1 - 0.012 * (place - 2) ** 2 + 0.004 * float(rng.standard_normal())
    return {
        key: {end: number * factor for end, number in cell.items()}
        for key, cell in row["metrics"].items()
    }


def runs_of(rng: np.random.Generator, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials and seeds behind a row."""
    kinds: list[tuple[str, int | None]] = [("reference", None)]
    if row["kind"] != "reference":
        trials = range(8) if row["kind"] == "tuned" else ()
        kinds = [*(("trial", n) for n in trials), *(("seed", n) for n in row["seeds"])]
    return [run(rng, row, kind, number) for kind, number in kinds]


def run(
    rng: np.random.Generator, row: dict[str, Any], kind: str, number: int | None
) -> dict[str, Any]:
    """One entry of `runs`."""
    settings = row["settings"] | ({"ssl.weight": float(rng.uniform(0.03, 3))} if number else {})
    means = {
        key: cell["value"] * float(rng.normal(1, 0.004)) for key, cell in row["metrics"].items()
    }
    return {
        "id": f"{int(rng.integers(2**32)):08x}",
        "dataset": row["dataset"],
        "fraction": row["fraction"],
        "method": row["method"],
        "kind": kind,
        "seed": number if kind == "seed" else None,
        "trial": number if kind == "trial" else None,
        "settings": {} if kind == "reference" else settings,
        "validation": None if kind == "reference" else means["recall@50"] * 1.01,
        "metrics": {} if kind == "trial" else means,
        "best_step": None if kind == "reference" else int(rng.integers(300, 900)),
        "steps": None if kind == "reference" else 900,
        "undertrained": number == 101 and row["undertrained"] > 0,
        "first_look": kind == "seed" and row["first_look"] > 1,
        "core_seconds": float(rng.uniform(20, 110)),
        "seconds": float(rng.uniform(110, 120)),
        "environment": "e3" if kind == "reference" else "e2" if kind == "trial" else "e1",
        "commit": "9f31c07be2d44a10",
    }


def study_claims(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """`claims.json`: three claims on every dataset and fraction, and one that is still open."""
    wanted = [
        ("CFM beats the baseline", "cfm", "baseline", "recall@50", {1.0: 0.041, 0.1: 0.183}),
        ("CFM beats SO", "cfm", "so", "recall@50", {1.0: 0.027, 0.1: 0.118}),
        ("CFM's gain is largest on the tail", "cfm", "baseline", "tail_recall@50", {1.0: 0.079}),
    ]
    claims = [
        claim(text, found, paper.get(found["fraction"]))
        for text, method, against, metric, paper in wanted
        for found in tables["contrasts"]
        if (found["method"], found["against"], found["metric"]) == (method, against, metric)
    ]
    nothing = dict.fromkeys(("paper", "ours", "low", "high", "p_holm", "seeds_needed", "margin"))
    where = {
        "method": "cfm",
        "against": None,
        "task": None,
        "seeds": None,
        "dataset": None,
        "fraction": None,
        "metric": None,
        "verdict": None,
        "note": "no run yet",
    }
    return [*claims, {"claim": "Uniform SSL items matter", **nothing, **where}]


def claim(text: str, found: dict[str, Any], paper: float | None) -> dict[str, Any]:
    """One claim, decided by its contrast."""
    low, high = found["relative_low"], found["relative_high"]
    is_narrow = (high - low) / 2 < (paper or 0.05) / 2
    verdict = "not_shown" if is_narrow else "underpowered"
    if found["significant"]:
        verdict = "holds" if found["mean"] > 0 else "contradicted"
    return {
        "claim": text,
        "method": found["method"],
        "against": found["against"],
        "task": "item to item",
        "margin": None,
        "seeds": found["seeds"],
        "dataset": found["dataset"],
        "fraction": found["fraction"],
        "metric": found["metric"],
        "paper": paper,
        "ours": found["relative"],
        "low": low,
        "high": high,
        "p_holm": found["p_holm"],
        "verdict": verdict,
        "seeds_needed": 14 if verdict == "underpowered" and paper else None,
        "note": "features say little here" if verdict == "contradicted" else "",
        **{mark: found[mark] for mark in ("undertrained", "first_look")},
    }
