"""The line that a person reads over hours, with a clock made by hand."""

import logging

import pytest

from chexpert_hier.archive.progress import Progress, duration


@pytest.mark.parametrize(("seconds", "words"), [(42.4, "42 s"), (119, "119 s"), (125, "2 min"), (7000, "117 min"),
                                                (7260, "2 h 1 min"), (47 * 3600, "47 h 0 min"),
                                                (2.25 * 86400, "2 days 6 h")])
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_rate_is_of_the_last_minutes_and_starting_up_does_not_count(capsys, caplog):
    caplog.set_level(logging.INFO, "chexpert_hier")
    now = [0.0]
    progress = Progress(100_000, done=10_000, errors=5, clock=lambda: now[0])
    now[0] = 300.0  # starting up
    progress.add(1_000, 1)
    assert "/s" not in progress.line()
    for _ in range(20):  # slow: one film a second
        now[0] += 100
        progress.add(100, 0)
    assert "1.0/s" in progress.line()
    for _ in range(20):  # then ten films a second
        now[0] += 100
        progress.add(1_000, 2)
    line = progress.line()
    assert "33,000 of 100,000 films (33.0 %), 10.0/s, 112 min left (until " in line and "46 with an error" in line
    progress.close()
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 42 and "23,000 of them in 72 min" in shown[-1]  # one a minute at most; here one every 100 s
