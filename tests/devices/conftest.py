"""Machines that are not here."""

import jax
import pytest


@pytest.fixture
def machine(monkeypatch):
    """machine(devices, processes): as if there were so many."""

    def pretend(devices, processes=1):
        monkeypatch.setattr(jax, "device_count", lambda: devices)
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)

    return pretend
