"""What processes tell each other: counting, and gathering from all of them."""

import threading
import time
from types import SimpleNamespace

import pytest
from torch.distributed import HashStore, TCPStore

from lit_purify.data import peers as peers_module
from lit_purify.data.peers import Peers, peers_of


@pytest.fixture
def host():
    """A store on a port of its own."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def connect(host):
    return TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False)


@pytest.fixture
def naps(monkeypatch):
    """Lets waiting processes ask often; set once one of them has asked in vain."""
    napped, pause = threading.Event(), threading.Event()

    def sleep(seconds):
        napped.set()
        pause.wait(0.001)

    monkeypatch.setattr(peers_module, "time", SimpleNamespace(sleep=sleep))
    return napped


def test_reports_add_up_over_processes():
    store = HashStore()
    first, second = Peers(store, 0, 2), Peers(store, 1, 2)
    assert [first.report(3), second.report(4), first.report(0), second.report(1)] == [3, 7, 7, 8]


def test_gathering_ends_when_all_have_come(host, naps):
    """And not before; every process then has the very floats, by rank and not by arrival."""
    values = {}

    def gather(rank):
        values[rank] = Peers(connect(host), rank, 3).gather(rank + 0.1)

    threads = [threading.Thread(target=gather, args=(rank,)) for rank in (2, 1)]
    for thread in threads:
        thread.start()
    assert naps.wait(30)
    assert values == {}
    gather(0)
    for thread in threads:
        thread.join(30)
    assert values == {rank: [0.1, 1.1, 2.1] for rank in range(3)}


def test_the_first_process_goes_last(host, monkeypatch):
    """The store is its own, and ends with it: one that has slept meanwhile still has to ask."""
    awake, asleep, waited = threading.Event(), threading.Event(), threading.Event()
    values = {}

    def sleep(seconds):
        if threading.current_thread().name == "1":
            asleep.set()
            awake.wait(30)
        else:
            waited.set()
            time.sleep(0.001)

    def gather(rank):
        values[rank] = Peers(connect(host), rank, 2).gather(rank)

    monkeypatch.setattr(peers_module, "time", SimpleNamespace(sleep=sleep))
    second, first = (threading.Thread(target=gather, args=(r,), name=str(r)) for r in (1, 0))
    second.start()
    assert asleep.wait(30)
    first.start()
    assert waited.wait(30)
    assert values == {}
    awake.set()
    for thread in (first, second):
        thread.join(30)
    assert values == {rank: [0.0, 1.0] for rank in (0, 1)}


def test_alone_there_is_nothing_to_wait_for(naps):
    peers = peers_of(None)
    assert (peers.rank, peers.processes) == (0, 1)
    assert peers.gather(1e-320) == [1e-320]
    assert not naps.is_set()


def test_who_outlives_the_first_process_is_told():
    """The counters end with the process that keeps them: its survivors must not write on."""
    host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    peers = Peers(connect(host), 1, 2)
    assert peers.report(3) == 3
    del host
    with pytest.raises(RuntimeError):
        peers.report(0)
