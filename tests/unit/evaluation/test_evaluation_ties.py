import numpy as np

from twotower.evaluation.ties import tie_keys, tie_ranks

GOLDEN = {
    "": 0x50012D96CDACC0CC,
    "a": 0xB5861B4F49FD869E,
    "libc6": 0x0D7495DB77622023,
    "python3-numpy": 0xA3AD8D617433BDF4,
    "naïve-Ω": 0x841EFADCA045D0DA,
}
"""Keys as first published; a change here changes every tied result ever reported."""


def test_keys_are_those_first_published() -> None:
    assert dict(zip(GOLDEN, tie_keys(GOLDEN).tolist(), strict=True)) == GOLDEN


def test_keys_depend_on_the_id_alone() -> None:
    ids = [f"package-{index}" for index in range(500)]
    order = np.random.default_rng(0).permutation(500)
    assert np.array_equal(tie_keys([ids[i] for i in order]), tie_keys(ids)[order])
    assert tie_keys(np.array(ids)).dtype == np.uint64
    assert len(np.unique(tie_keys(ids))) == 500


def test_ranks_follow_keys_over_the_whole_unsigned_range() -> None:
    keys = np.array([2**64 - 1, 0, 2**63, 5, 5], dtype=np.uint64)
    assert tie_ranks(keys).tolist() == [4, 0, 3, 1, 2]


def test_no_ids_give_no_keys() -> None:
    assert tie_keys([]).shape == (0,)
