"""`twotower bench` on the command line."""

import pytest
from typer.testing import CliRunner

from twotower.cli import app
from twotower.core.errors import InputError

RUNNER = CliRunner()


@pytest.mark.parametrize("name", ["all", "prepare", "train", "tables"])
def test_every_bench_says_what_it_takes(name: str) -> None:
    found = RUNNER.invoke(app, ["bench", name, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert "--output" in found.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--precision", "fp16"], "--precision fp16: take float32 or bf16"),
        (["--cells", "4096ssl"], "cell '4096ssl': take a batch size"),
    ],
)
def test_what_can_not_be_measured_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(InputError, match="take") as error:
        RUNNER.invoke(app, ["bench", "train", *arguments], catch_exceptions=False)
    assert told in str(error.value)
