"""Four processes: the same weights; one of them killed."""

import pytest
from test_several import assert_same, finished, killed, start, work  # noqa: F401

pytestmark = pytest.mark.slow


def test_four_processes(work):  # noqa: F811
    finished(start(work, "one"))
    finished(start(work, "four", 4))
    assert_same(work, "one", "four")
    killed(work, "killed", "stage1,1,", who=2, processes=4)
    finished(start(work, "killed", 2, "--resume"))
    assert_same(work, "one", "killed")
