"""A plan is made from its seed alone."""

import pytest

from tests.ordeal.plan import Kind, faults

pytestmark = pytest.mark.unit


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    first = faults(seed=7, count=30, seconds=60, lease=4)
    assert faults(seed=7, count=30, seconds=60, lease=4) == first
    assert faults(seed=8, count=30, seconds=60, lease=4) != first


def test_every_kind_of_fault_is_in_a_plan_of_thirty():
    assert {fault.kind for fault in faults(seed=1, count=30, seconds=60, lease=4)} == set(Kind)


def test_faults_come_in_order_and_a_freeze_outlasts_the_lease():
    plan = faults(seed=3, count=200, seconds=60, lease=4)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert min(fault.lasts for fault in plan if fault.kind is Kind.FREEZE) > 4
