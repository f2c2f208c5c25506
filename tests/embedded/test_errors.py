import errno
from pathlib import Path

import pytest

from gateway.embedded import errors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_full_whoever_says_it(tmp_path, code):
    said = str(errors.from_os_error(OSError(code, "whatever", "file"), tmp_path))
    assert said == f"the disk that holds the data folder {tmp_path} is full"
    (tmp_path / "log").write_text(
        "LOG:  starting\nFATAL:  could not write to file: No space left on device\nLOG:  bye\n"
    )
    assert str(errors.from_log("PostgreSQL", tmp_path / "log", tmp_path)) == said


def test_another_failure_of_the_system_keeps_its_words_and_its_file():
    error = OSError(errno.EROFS, "Read-only file system", "/d/run")
    assert str(errors.from_os_error(error, Path("/d"))) == (
        "the data folder /d cannot be used: Read-only file system (/d/run)"
    )


def test_a_log_is_told_by_its_last_complaint_or_else_its_last_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("noise\n" * 5000 + "FATAL:  bad file\nDETAIL:  more\n")
    assert "its last words were: FATAL:  bad file (log:" in str(errors.from_log("X", log, tmp_path))
    log.write_text("one\ntwo\n\n")
    assert "its last words were: two (log:" in str(errors.from_log("X", log, tmp_path))


def test_a_missing_log_is_silence(tmp_path):
    assert str(errors.from_log("X", tmp_path / "none", tmp_path)).startswith("X did not start; it said nothing (log:")
