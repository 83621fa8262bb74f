"""Wherever a process of ingestion dies, freezes or is told nothing, all promises are kept."""

import asyncio
import time
from collections import deque

import pytest

from tests.ordeal.acts import ACTS
from tests.ordeal.crashes import cases, discover, suffer

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(300)]

LOTS = 12


async def test_every_crash_point_of_ingestion_keeps_every_promise(make_lot):
    failed, missed, done = [], [], 0
    async with make_lot() as lot:
        await lot.upload("The first upload makes the default vector store.")
        await lot.quiet()
        found = [case for act in ACTS for case in cases(act, await discover(lot, act))]
    waiting = deque(found)

    async def work():
        nonlocal done
        while waiting:
            async with make_lot() as lot:
                while waiting:
                    case = waiting.popleft()
                    met, findings = await suffer(lot, case)
                    done += 1
                    if not met:
                        missed.append(str(case))
                    if findings:
                        failed.append((str(case), findings))
                        break

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(LOTS):
            group.create_task(work())
    print(f"{done} cases in {time.monotonic() - began:.1f} s, {len(missed)} points not met")
    for each in missed:
        print("missed", each)
    assert not failed, "\n".join(f"{case}: {findings}" for case, findings in failed)
    assert len(missed) < len(found) / 20, missed
