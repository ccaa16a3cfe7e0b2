"""Does harm to workers and broker while records flow, then compares with an undisturbed run."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence

from tests.conftest import Running
from tests.mocks.stack import Stack, Worker
from tests.waiting import eventually

READY_SECONDS = 90.0
FEED_RECORDS = 100
FEED_SECONDS = 0.1
KILLS = frozenset({"kill", "wipe", "pause", "broker", "outage"})


class Chaos:
    """One course of events on a stack; `kills` counts processes that were killed or paused past their session."""

    def __init__(self, stack: Stack, broker: Running, seed: int, say: Callable[[str], None] = print, outage_seconds: float = 0.0) -> None:
        self.stack, self.broker, self.say, self.outage_seconds = stack, broker, say, outage_seconds
        self.chance = random.Random(seed)
        self.kills = 0
        self.workers: dict[int, Worker] = {}
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._begun = time.monotonic()

    def run(self, events: Sequence[str]) -> None:
        """Start a worker and let events happen, each after some progress."""
        self._start(0)
        self._feeder.start()
        for number, event in enumerate(events, 1):
            self._revive()
            self._wait_for_progress()
            before, moment = self._positions(), time.monotonic() - self._begun
            pid = getattr(self, f"_{event}")()
            self._revive()
            self._wait_for_progress()
            self.kills += event in KILLS
            self.say(f"{number:3} {moment:7.1f} s  {event:<6} pid {pid:<7} positions {before} -> {self._positions()}")

    def finish(self) -> dict[str, int]:
        """Stop feeding, wait until all is applied, compare; return the repeats seen by topic."""
        self._stop.set()
        self._feeder.join()
        self._revive()
        self.stack.wait_applied(120)
        repeats: dict[str, int] = {}
        for agent in self.stack.agents:
            repeats |= self.stack.verify(agent)
        for worker in self.workers.values():
            assert worker.stop() == 0, "a worker did not stop cleanly"
        return repeats

    def _feed(self) -> None:
        while not self._stop.wait(FEED_SECONDS):
            for agent in self.stack.agents:
                self.stack.feed(FEED_RECORDS, agent)

    def _start(self, number: int) -> Worker:
        worker = self.workers[number] = self.stack.start(number)
        eventually(lambda: worker.ready(len(self.stack.agents)), READY_SECONDS, f"worker {number} being ready")
        return worker

    def _revive(self) -> None:
        """Start again what has ended, as a supervisor would."""
        for number, worker in list(self.workers.items()):
            if worker.process.poll() is not None:
                assert worker.process.returncode != 2, f"worker {number} refused: {[line['msg'] for line in worker.lines()][-1]}"
                self._start(number)

    def _wait_for_progress(self) -> None:
        for agent in self.stack.agents:
            begun = self.stack.committed(agent)

            def moved(agent: str = agent, begun: list[int] = begun) -> bool:
                self._revive()
                return sum(self.stack.committed(agent)) > sum(begun)

            eventually(moved, READY_SECONDS, f"agent {agent} getting on")
        time.sleep(self.chance.random() * 0.3)  # where between two checkpoints the harm falls is left to chance

    def _positions(self) -> list[int]:
        return self.stack.committed(self.stack.agents[0])

    def _any(self) -> tuple[int, Worker]:
        return self.chance.choice(sorted(self.workers.items()))

    def _kill(self) -> int:
        _, worker = self._any()
        worker.kill()
        return worker.pid

    def _wipe(self) -> int:
        number, worker = self._any()
        worker.kill()
        self.stack.wipe_disk(number)
        return worker.pid

    def _pause(self) -> int:
        """Pause a worker until the others have all its partitions, then let it go on."""
        number, worker = self._any()
        worker.signal(signal.SIGSTOP)
        if len(self.workers) == 1:
            self._start(number + 1)
        eventually(lambda: self._taken_over(worker), READY_SECONDS, "the takeover")
        self._wait_for_progress()
        worker.signal(signal.SIGCONT)
        return worker.pid

    def _taken_over(self, paused: Worker) -> bool:
        self._revive()
        agent = self.stack.agents[0]
        owned = [partition for worker in self.workers.values() if worker is not paused for partition in worker.owned(agent)]
        return sorted(owned) == list(range(self.stack.settings.topic_partitions))

    def _broker(self) -> int:
        pid = self.broker.pid
        self.broker.kill()
        self.broker.start()
        return pid

    def _outage(self) -> int:
        """Take the broker away for as long as was asked; feeder and workers have to wait for it."""
        pid = self.broker.pid
        self.broker.kill()
        threading.Event().wait(self.outage_seconds)
        self.broker.start()
        return pid

    def _join(self) -> int:
        number = max(self.workers) + 1
        return self._start(number).pid

    def _leave(self) -> int:
        if len(self.workers) < 2:
            return self._join()
        number, worker = self._any()
        del self.workers[number]
        assert worker.stop() == 0
        return worker.pid
