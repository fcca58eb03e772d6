"""The work queue: each number to one process, and gathering from all of them."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from lit_purify.data.queue import WorkQueue, shared_queue
from processes import PATIENCE
from queue_takers import take_below, take_in_process
from torch.distributed import HashStore, TCPStore

from lit_purify.data import queue as queue_module


@pytest.fixture
def hosted():
    """A store on a port of its own, and what connects to it."""
    host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return host, lambda: TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False)


def in_threads(functions: list[Callable[[], Any]]) -> list[Any]:
    """What the functions return that run at the same time."""
    results: list[Any] = [None] * len(functions)

    def keep(place: int) -> None:
        results[place] = functions[place]()

    threads = [threading.Thread(target=keep, args=(place,)) for place in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def test_one_process_counts():
    queue = WorkQueue(HashStore())
    assert [queue.take() for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_the_first_number_is_the_rank_and_then_whoever_asks(processes):
    store = HashStore()
    queues = [WorkQueue(store, rank, processes) for rank in range(processes)]
    last, *_ = reversed(queues)
    assert [last.take() for _ in range(4)] == [processes - 1, *range(processes, processes + 3)]
    assert [queue.take() for queue in queues[:-1]] == list(range(processes - 1))
    assert [queue.take() for queue in queues] == list(range(processes + 3, 2 * processes + 3))


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 400])
def test_threads_share_the_numbers_of_one_store(n):
    store = HashStore()
    taken = in_threads([lambda rank=rank: take_below(store, rank, 4, n) for rank in range(4)])
    assert sorted(number for own in taken for number in own) == list(range(n))
    assert all(own == sorted(own) for own in taken)
    assert [own[:1] for own in taken] == [[rank] if rank < n else [] for rank in range(4)]


@pytest.mark.parametrize("n", [2, 300])
def test_processes_share_the_numbers_of_one_server(n, hosted):
    host, _ = hosted
    # Not forked from this process: a thread of it may hold a lock that the child would wait for.
    context = multiprocessing.get_context("forkserver")
    results = context.Queue()
    processes = [
        context.Process(target=take_in_process, args=(host.port, rank, n, results))
        for rank in range(3)
    ]
    for process in processes:
        process.start()
    taken = [results.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(number for own in taken for number in own) == list(range(n))


def test_reports_add_up_over_processes():
    store = HashStore()
    first, second = WorkQueue(store, 0, 2), WorkQueue(store, 1, 2)
    assert [first.report(3), second.report(4), first.report(0), second.report(1)] == [3, 7, 7, 8]
    assert second.take() == 1  # counting samples hands out nothing


def test_gathering_ends_when_all_have_come(hosted, monkeypatch):
    monkeypatch.setattr(queue_module, "_POLL_SECONDS", 0.01)
    _, connect = hosted
    came: list[int] = []

    def run(rank: int) -> tuple[list[int], list[float]]:
        queue = WorkQueue(connect(), rank, 3)
        time.sleep(0.15 * (2 - rank))
        came.append(rank)
        values = queue.gather(rank + 0.1)
        return sorted(came), values

    expected = ([0, 1, 2], [0.1, 1.1, 2.1])  # the very floats, by rank and not by arrival
    assert in_threads([lambda rank=rank: run(rank) for rank in range(3)]) == [expected] * 3


def test_gathering_does_not_end_while_one_is_missing(monkeypatch):
    monkeypatch.setattr(queue_module, "_POLL_SECONDS", 0.01)
    store = HashStore()
    done = threading.Event()

    def gather() -> None:
        WorkQueue(store, 0, 2).gather()
        done.set()

    thread = threading.Thread(target=gather)
    thread.start()
    assert not done.wait(0.3)
    assert WorkQueue(store, 1, 2).gather(5.0) == [0.0, 5.0]
    assert done.wait(5)
    thread.join()


def test_alone_there_is_nothing_to_wait_for(monkeypatch):
    monkeypatch.setattr(queue_module.time, "sleep", None)
    assert WorkQueue(HashStore()).gather(1e-320) == [1e-320]


def test_who_outlives_the_first_process_is_told():
    """The counters end with the process that keeps them: its survivors must not write on."""
    host = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store = TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False)
    queue = WorkQueue(store, 1, 2)
    assert queue.report(3) == 3
    del host
    with pytest.raises(RuntimeError):
        queue.report(0)
    with pytest.raises(RuntimeError):
        [queue.take() for _ in range(2)]


def test_without_a_trainer_there_is_one_process():
    queue = shared_queue(None)
    assert (queue.rank, queue.processes) == (0, 1)
    assert [queue.take(), queue.take()] == [0, 1]
