"""The progress line shows what happens in the words it is given."""

from rich.progress import Task

from twotower.report.console import Display


def test_what_happens_is_no_markup() -> None:
    display = Display(quiet=True)
    display.about("baseline [/b]")
    display.show("training :smile:", 1, 2, "loss [red]0.5[/x]")
    task: Task = display._bar.tasks[0]
    shown = [str(column(task)) for column in display._bar.columns if not isinstance(column, str)]
    assert shown[0] == "baseline [/b]: training :smile:"
    assert shown[-1] == "loss [red]0.5[/x]"
