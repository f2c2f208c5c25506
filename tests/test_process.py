"""gateway.process: what a process does before it listens. (How it drains and ends: tests/e2e/test_shutdown.py.)"""

import resource

from gateway import process


def test_the_limit_of_open_files_is_raised_to_what_is_allowed():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raised = process.raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised > 512
        assert process.raise_file_limit() == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
