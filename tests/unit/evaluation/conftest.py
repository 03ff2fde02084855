import os

import hypothesis
import pytest
import torch

# ranx compiles for a minute; its plain Python gives the same numbers. Read when numba is imported.
os.environ["NUMBA_DISABLE_JIT"] = "1"

# Two cores shared with others: how long one example takes says nothing.
hypothesis.settings.register_profile("shared_machine", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared_machine")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
