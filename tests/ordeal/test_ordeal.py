"""The small Ordeal: two hundred documents, thirty faults, no promise broken."""

import pytest

from tests.ordeal.run import Size, ordeal

pytestmark = [pytest.mark.system, pytest.mark.ordeal, pytest.mark.timeout(600)]


async def test_thirty_faults_break_no_promise(tmp_path):
    said = []
    report = await ordeal(Size(seed=1, documents=200, faults=30), directory=tmp_path, say=said.append)
    assert report.passed, "\n".join([*said, str(report)])
    assert len(report.faults) >= 25
