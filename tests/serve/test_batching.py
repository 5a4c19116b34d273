"""Batches grow while the network is busy, one bad item harms no other, and nobody waits without a bound."""

import asyncio
import threading
import time

import pytest

from chexpert_hier.serve.batching import Batcher, BusyError, Limits, Room


def run(function):
    return asyncio.run(asyncio.wait_for(function(), 20))


def test_what_comes_while_the_network_is_busy_goes_together_and_in_order():
    sizes, busy = [], threading.Event()

    def work(items):
        if items == [0]:
            busy.wait(10)
        return [10 * item for item in items]

    async def test():
        batcher = Batcher(work, Limits(batch=4, wait=0), sizes.append)
        first = asyncio.ensure_future(batcher.answer(0))
        await asyncio.sleep(0.05)
        others = [asyncio.ensure_future(batcher.answer(k)) for k in range(1, 7)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 6
        busy.set()
        assert await asyncio.gather(first, *others) == [0, 10, 20, 30, 40, 50, 60]
        await batcher.close()

    run(test)
    assert sizes == [1, 4, 2]


def test_an_item_that_fails_fails_alone():
    def work(items):
        if 3 in items:
            raise ValueError("three")
        return items

    async def test():
        batcher = Batcher(work, Limits(wait=0.01))
        answers = await asyncio.gather(*map(batcher.answer, range(6)), return_exceptions=True)
        await batcher.close()
        return answers

    answers = run(test)
    assert isinstance(answers.pop(3), ValueError) and answers == [0, 1, 2, 4, 5]


def test_more_than_may_wait_is_refused_and_a_client_that_left_is_passed_over():
    seen, go = [], threading.Event()

    def work(items):
        go.wait(10)
        seen.extend(items)
        return items

    async def test():
        batcher = Batcher(work, Limits(batch=1, wait=0, waiting=2))
        first = asyncio.ensure_future(batcher.answer("in work"))
        await asyncio.sleep(0.05)
        left, stays = (asyncio.ensure_future(batcher.answer(name)) for name in ("left", "stays"))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="2 films are waiting"):
            await batcher.answer("too many")
        left.cancel()
        go.set()
        assert await first == "in work" and await stays == "stays"
        await batcher.close()

    run(test)
    assert seen == ["in work", "stays"]


def test_room_lets_in_while_there_is_some_and_one_however_large():
    async def test():
        room, order = Room(10), []

        async def hold(name, amount, seconds):
            await room.enter()
            room.take(amount)
            order.append(name)
            await asyncio.sleep(seconds)
            await room.give_back(amount)

        start = time.monotonic()
        await asyncio.gather(hold("large", 1000, 0.1), hold("small", 1, 0))
        assert order == ["large", "small"] and time.monotonic() - start >= 0.1

    run(test)
