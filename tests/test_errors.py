"""The wording of messages, and what is logged."""

import logging

import pytest

from textvae.errors import first_line, only_errors


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("wrong shape\nand more"), "wrong shape"),
        (ValueError("\n  wrong shape"), "wrong shape"),
        (ValueError(""), "ValueError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_in_one_line(error, line):
    assert first_line(error) == line


def test_only_errors_are_logged_for_a_while(caplog):
    log = logging.getLogger("textvae.somewhere")
    with caplog.at_level("INFO", "textvae"):
        with pytest.raises(KeyError), only_errors():
            log.warning("no")
            log.error("yes")
            raise KeyError
        log.info("again")
    assert [record.message for record in caplog.records] == ["yes", "again"]
