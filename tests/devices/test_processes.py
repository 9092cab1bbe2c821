"""Processes that cannot meet, or that disagree, are refused by a sentence."""

import socket
import time

import jax
import numpy as np
import pytest

from nada_jax.devices import processes
from nada_jax.devices.processes import Distributed
from nada_jax.errors import UserError


def connect(coordinator, count, process):
    processes.connect(Distributed(coordinator=coordinator, processes=count, process=process))


@pytest.mark.parametrize(
    ("coordinator", "count", "process", "message"),
    [
        (
            "",
            2,
            0,
            "distributed.processes is 2 .* distributed.coordinator is ''; expected host:port",
        ),
        ("auto", 1, 1, "distributed.process is 1, but distributed.coordinator is 'auto'"),
        ("node1", 2, 0, "distributed.coordinator is 'node1'; expected host:port"),
        ("node1:123", 1, 0, "distributed.processes is 1; expected at least 2"),
        ("node1:123", 4, 4, "distributed.process is 4; expected 0..3"),
    ],
)
def test_processes_that_cannot_meet_are_refused(coordinator, count, process, message):
    with pytest.raises(UserError, match=message):
        connect(coordinator, count, process)


def test_a_pod_is_joined_without_any_field(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **named: calls.append(named))
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    connect("", 1, 0)
    assert not calls
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1")
    connect("", 1, 0)
    connect("auto", 1, 0)
    assert calls == [{"initialization_timeout": 2 * processes.PATIENCE}] * 2


def test_processes_that_do_not_meet_are_named(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: time.sleep(1))
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    with pytest.raises(UserError, match="='node1:123': the processes did not meet within 0.1 s"):
        connect("node1:123", 2, 1)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match="process 0 cannot use port .*; give another one"):
            connect(address, 2, 0)


def test_a_missing_cluster_is_named(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match="coordinator='auto': .*; expected host:port of process 0"):
        connect("auto", 1, 0)


def test_what_fails_on_another_process_fails_here(monkeypatch, machine):
    machine(2, processes=2)
    told = np.zeros((2, processes.LONGEST), np.uint8)
    told[1, :7] = list(b"no disk")
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", lambda text: told)
    with pytest.raises(UserError, match="process 1: no disk"):
        processes.together(lambda: None)
