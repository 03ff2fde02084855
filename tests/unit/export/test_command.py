"""What the commands print of data is that data, and what they are given is refused in a line."""

import pytest

from twotower.core.errors import InputError
from twotower.export import command
from twotower.export.write import Exported, TableSize


def test_data_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = TableSize("item.[red]a[/b]", "full", 1, 1, 4, 4)
    path = "runs/[bold]x[/y]:smile:/export"
    command.show_export(Exported(path, {"a": 1}, "cosine", (table,), {}, None))
    shown = capsys.readouterr().out
    assert "item.[red]a[/b]" in shown
    assert shown.splitlines()[-1] == path, "a script reads the place from the last line"


@pytest.mark.parametrize("scorer", ["cosine", "gmf", "neumf"])
def test_it_says_what_is_no_onnx_graph(scorer: str, capsys: pytest.CaptureFixture[str]) -> None:
    command.show_export(Exported("e", {"a": 1}, scorer, (), {"item_tower": 1e-7}, None))
    shown = capsys.readouterr().out
    assert "item_tower.onnx: within 1e-07 of torch" in shown
    assert ("no ONNX graph of the network" in shown) == (scorer == "neumf")
    command.show_export(Exported("e", {"a": 1}, scorer, (), {}, None))
    assert "ONNX" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" + "0" * 5000, "{", "[1]"])
def test_a_record_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--record"):
        command._record(text)
