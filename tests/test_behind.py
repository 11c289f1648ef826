"""Calls that are done behind their caller's back: all, in order, and no fault is lost."""

import time
from threading import Event, current_thread, get_ident

import pytest

from pipeline.behind import AtOnce, Behind


def test_calls_are_done_in_order_while_the_caller_goes_on() -> None:
    """One at most is behind."""
    seen, threads, goes_on = list[int](), set[int](), Event()

    def work(number: int) -> None:
        assert goes_on.wait(10)
        goes_on.clear()
        threads.add(get_ident())
        seen.append(number)

    with Behind() as behind:
        behind.do(work, 0)
        for number in range(1, 5):
            assert seen == list(range(number - 1))
            goes_on.set()
            behind.do(work, number)
            assert seen == list(range(number))
        goes_on.set()
    assert seen == list(range(5))
    assert len(threads - {current_thread().ident}) == 1


def fail(word: str) -> None:
    raise ValueError(word)


def test_a_fault_comes_out_at_the_next_call_or_at_the_end() -> None:
    done = list[int]()
    with Behind() as behind:
        behind.do(fail, "first")
        with pytest.raises(ValueError, match="first"):
            behind.do(done.append, 1)
    with pytest.raises(ValueError, match="last"), Behind() as behind:
        behind.do(fail, "last")
    assert done == []


def test_the_caller_s_fault_is_the_one_that_comes_out() -> None:
    """And what is behind has ended by then."""
    done = list[int]()

    def slow() -> None:
        time.sleep(0.05)
        done.append(1)

    def both() -> None:
        with Behind() as behind:
            behind.do(slow)
            fail("the caller's")

    with pytest.raises(ValueError, match="the caller's"):
        both()
    assert done == [1]


def test_at_once() -> None:
    done = list[int]()
    with AtOnce() as adding:
        adding.do(done.append, 1)
        assert done == [1]
