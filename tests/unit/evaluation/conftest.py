import os

import pytest
import torch

# ranx compiles for a minute; its plain Python gives the same numbers. Read when numba is imported.
os.environ["NUMBA_DISABLE_JIT"] = "1"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
