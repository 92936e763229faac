"""One operation at a time for each service."""

import pytest

from escala.errors import ServiceBusy
from escala.supervisor.replicas.locks import ServiceLocks


def test_a_service_is_locked_for_one_and_free_after_it() -> None:
    locks = ServiceLocks()
    with locks.hold(["web", "api"], "a rollout"):
        assert locks.holder("web") == "a rollout"
        with pytest.raises(ServiceBusy, match="web is busy: a rollout is under way"), locks.hold(["web"], "scaling"):
            pass
        with locks.hold(["other"], "scaling"):
            pass
    assert locks.holder("web") is None


def test_all_or_none_are_locked() -> None:
    locks = ServiceLocks()
    with locks.hold(["api"], "apply"):
        with pytest.raises(ServiceBusy), locks.hold(["web", "api"], "a rollout"):
            pass
        assert locks.holder("web") is None


def test_a_failure_frees_them() -> None:
    locks = ServiceLocks()
    with pytest.raises(ZeroDivisionError), locks.hold(["web"], "a rollout"):
        raise ZeroDivisionError
    assert locks.holder("web") is None
