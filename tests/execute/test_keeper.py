"""What a keeper reports, and how it is read."""

from __future__ import annotations

import pytest

from govrun.execute.keeper import Told, parse_report

REPORT = b"errno 2\nstatus 32512\nfinished 3 1500 4096\n"


def test_a_whole_report_is_read() -> None:
    expected = Told(errno=2, status=32512, finished=True, leftovers=3, cpu_us=1500, max_rss_bytes=4096)
    assert parse_report(REPORT) == expected


@pytest.mark.parametrize("cut", range(len(REPORT)))
def test_a_line_that_is_not_finished_says_nothing(cut: int) -> None:
    whole = REPORT[:cut].rpartition(b"\n")[0]
    assert parse_report(REPORT[:cut]) == parse_report(whole + b"\n" if whole else b"")
    assert not parse_report(REPORT[:cut]).finished


def test_a_size_of_zero_is_unknown() -> None:
    assert parse_report(b"finished 0 0 0\n").max_rss_bytes is None
