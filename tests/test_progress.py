"""What a person sees while work goes on."""

import logging
import re
import subprocess
import sys
import threading
import warnings

import pytest

from study import progress


class Terminal:
    """A stream that says that it is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch) -> Terminal:
    """A terminal in the place of stderr, wide enough for a bar and its words."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return terminal


class Clock:
    """A time that a test sets."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (0, "B", "0 B"),
        (87, "", "87"),
        (999, "B", "999 B"),
        (999.6, "B", "1 kB"),
        (12_412, "", "12.4 k"),
        (1.534e9, "FLOP", "1.53 GFLOP"),
        (999_999, "", "1 M"),
        (2e18, "FLOP", "2 EFLOP"),
    ],
)
def test_numbers_have_three_digits_and_a_letter(value, unit, text):
    """A plan with 51800000 examples is not read but counted."""
    assert progress.number(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (7300, "2 h 02 min"), (277_200, "3 d 5 h")],
)
def test_durations_are_what_a_person_plans_with(seconds, text):
    """Whether to wait, to have lunch or to come back on Monday."""
    assert progress.duration(seconds) == text


def test_results_do_not_mix_with_progress(capsys):
    """stdout can be piped into a file."""
    progress.say("working")
    assert capsys.readouterr() == ("", "working\n")


def test_short_work_leaves_no_trace(capsys, clock):
    """A bar that flashes up for every small file is noise."""
    with progress.bar("decoding", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, clock):
    """A log file of a night's run must say how far it is, and must not hold a million redrawn bars."""
    with progress.bar("training", 1000) as advance:
        for _ in range(100):
            clock.now += 1.0
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 16%, 10 examples/s, 84 s left"
    assert lines[-1] == "training: done in 2 min, 10 examples/s"
    assert len(lines) == 7


def test_what_an_earlier_launch_did_counts_for_the_share_not_the_rate(capsys, clock):
    """A resumed ensemble at 90 % must not promise ten times its speed."""
    with progress.bar("training", 1000, done=900) as advance:
        clock.now += 16.0
        advance(16)
    assert capsys.readouterr().err.splitlines()[0] == "training: 92%, 1 examples/s, 84 s left"


def test_what_goes_on_aside_enters_neither_rate_nor_time_left(capsys, clock):
    """Evidence of epoch 0 takes minutes before the first example is trained on: no 3 examples/s, no 27 hours."""
    with progress.bar("training", 1000) as advance:
        for share in (0, 50, 100):
            clock.now += 16.0
            advance(0, f"gathering norms, {share}%")
        advance(0)
        for _ in range(4):
            clock.now += 8.0
            advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "training: 0%, gathering norms, 0%",
        "training: 0%, gathering norms, 50%",
        "training: 0%, gathering norms, 100%",
        "training: 20%, 6.25 examples/s, 2 min of the work itself left",
        "training: 40%, 8.33 examples/s, 72 s of the work itself left",
        "training: done in 80 s (32 s of it aside), 8.33 examples/s",
    ]


def test_the_last_line_is_left_out_when_the_work_fails(capsys, clock):
    """`done` under a work that was stopped is a lie."""

    def work() -> None:
        with progress.bar("training", 1000) as advance:
            clock.now += 20.0
            advance(16)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "done" not in capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch, clock):
    """What is done, what remains, how fast."""
    terminal = shown(monkeypatch)
    with progress.bar("training", 100) as advance:
        for _ in range(5):
            clock.now += 2.0
            advance(10)
    assert "training" in terminal.text
    assert "50%" in terminal.text
    assert "5 examples/s" in terminal.text


def test_a_terminal_shows_what_goes_on_aside_in_place_of_the_rate(monkeypatch, clock):
    """The bar stands still; somebody must say why."""
    terminal = shown(monkeypatch)
    with progress.bar("training", 100) as advance:
        clock.now += 2.0
        advance(0, "gathering norms, 40%")
    assert "gathering norms, 40%" in terminal.text
    assert "examples/s" not in terminal.text


def test_threads_may_advance_together(monkeypatch, clock):
    """Decoding and training count from several threads; a lost count ends below 100 %."""
    terminal = shown(monkeypatch)
    with progress.bar("training", 4000) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 5.0
        advance(0)
    assert "100%" in terminal.text


def test_quiet_is_a_bar_that_shows_nothing(capsys):
    """Callers that are programs pass it where a person would see a bar."""
    with progress.quiet("training", 10, unit="examples", done=3) as advance:
        advance(7)
    assert capsys.readouterr() == ("", "")


def test_messages_of_modules_are_lines_on_stderr(capsys):
    """Without level, time or logger: they are sentences for people."""
    progress.show_messages()
    progress.show_messages()
    logging.getLogger("study.runs.single").info("repeat %d: finished before", 1)
    assert capsys.readouterr().err == "repeat 1: finished before\n"


SILENT = """
import logging, sys
from study import progress
logging.getLogger("study.runs").info("not seen")
with progress.chosen_bar()("work", 10) as advance:
    advance(10)
assert progress.chosen_bar(True) is progress.bar
assert progress.chosen_bar(False) is progress.quiet
"""


def test_from_python_nothing_is_shown_unless_asked_for():
    """A library prints nothing; there is no terminal here."""
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_terminal_has_a_bar_from_python_too(monkeypatch):
    """Unless it is declined."""
    shown(monkeypatch)
    assert progress.chosen_bar() is progress.bar
    assert progress.chosen_bar(False) is progress.quiet


NOTEBOOK = """
from study import progress
progress.PATIENCE, progress.REFRESH = -1.0, -1.0
with progress.chosen_bar()("training", 4, unit="networks") as advance:
    for _ in range(4):
        advance(1)
"""


def test_a_notebook_has_one_line_that_ends_full(tmp_path):
    """Stored notebooks keep the last state, not one line per step."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=str(tmp_path))
    (output,) = notebook.cells[0].outputs
    assert re.fullmatch(r"training █{30} 100%  0 s, .* networks/s", output["data"]["text/plain"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("right\u202eleft", "right\\u202eleft"),
        ("not \udc80 UTF-8", "not \\udc80 UTF-8"),
        ("größer\t[/b]\n猫 👩‍👧", "größer\t[/b]\n猫 👩‍👧"),
    ],
)
def test_no_text_steers_the_terminal(text, shown, capsys):
    """Names of classes, files and runs are anybody's; all go to a console through these two."""
    progress.say(text)
    progress.print_line(text)
    assert capsys.readouterr() == (shown + "\n", shown + "\n")
