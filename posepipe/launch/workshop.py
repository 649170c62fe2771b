"""A worker process: runs its part of the plan, tells the supervisor what happens, does what it is told."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from posepipe.nodes._codecs import codec
from posepipe.pipeline.clock import StudioClock
from posepipe.pipeline.errors import PosepipeError, stopped_by
from posepipe.pipeline.far import Far, Peer
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.inbox import Inbox, Post
from posepipe.pipeline.ledger import LedgerTap
from posepipe.pipeline.packet import Poses
from posepipe.pipeline.part import Part, Surroundings
from posepipe.pipeline.pictures import Pictures
from posepipe.pipeline.remote import Bridge, wires
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.snapshot import glance
from posepipe.pipeline.stats import TraceLog
from posepipe.pipeline.worker import Shared, Slot

from . import echo, letters, logs
from .harm import Harming
from .heap import one_heap
from .letters import Line

_BEAT_S = 0.2
_DRAIN_S = 10.0
_SPANS_AT_ONCE = 200
_ENTRIES_AT_ONCE = 500
_ENTRIES_EVERY_NS = 100_000_000
_CONNECTED_WITHIN_S = 3.0
_BEHIND = 10


@dataclass(frozen=True)
class Job:
    """What every worker of a run has in memory from its birth. On another host: ip, where it listens, and its keys for links."""

    plan: Plan
    around: Surroundings
    clock: StudioClock
    address: Callable[[str], str]
    secret: bytes
    trace: bool
    loud: bool
    ip: str = ""
    keys: tuple[bytes, bytes] | None = None

    def __call__(self, name: str, line: Line) -> None:
        Workshop(self, name, line).run()


class _LogLine(logging.Handler):
    """Log lines go to the supervisor, which has the terminal."""

    def __init__(self, line: Line, worker: str) -> None:
        super().__init__()
        self._line, self._worker = line, worker

    def emit(self, record: logging.LogRecord) -> None:
        self._line.send(letters.Said(record.levelno, logs.of_worker(record.name, self._worker), self.format(record)), wait=False)


class Workshop:
    """One worker process from birth to death. Three threads: the one that works, one that listens to the supervisor, one that beats."""

    def __init__(self, job: Job, name: str, line: Line) -> None:
        self._job, self._name, self._line = job, name, line
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._shared.stop.set())
        self._warns_as = logs.of_worker("posepipe.run", name) if logs.as_json() else ""
        logging.basicConfig(
            level=logging.INFO if job.loud else logging.WARNING, handlers=[_LogLine(line, name)], format="%(message)s", force=True
        )
        self._tap = LedgerTap()
        self._shared = Shared(offline=False, trace=TraceLog() if job.trace else None, ledger=self._tap)
        self._shared.clock = job.clock
        self._pictures = Pictures(lambda camera, width, height: self._tell(letters.Ask(camera, width, height)))
        self._go = threading.Event()
        self._start = letters.Start(0, 0.0, {}, [])
        self._over = threading.Event()
        self._told: dict[str, int] = {}
        self._told_end = self._told_quality = self._entered_ns = 0

    def _tell(self, letter: letters.Letter) -> None:
        self._line.send(letter)

    def run(self) -> None:
        """Open, wait for the start, work, say how it ended."""
        one_heap()
        job = self._job
        post = Post(job.address, job.secret)
        try:
            inbox = Inbox(post, self._name)
            if any(wire.between_hosts and self._name in (wire.from_worker, wire.to_worker) for wire in wires(job.plan)):
                post.far = Far(post.context, self._warn, keys=job.keys)
            bridge = Bridge(job.plan, self._name, post, inbox, self._pictures, codecs=codec)
            around = dataclasses.replace(job.around, warn=self._warn, lend=self._pictures.lend)
            part = Part(job.plan, around, self._shared, here=self._name, bridge=bridge, inbox=inbox)
        except PosepipeError as e:
            self._tell(letters.Fault.of(e))
            return
        harming = Harming(part.slots, bridge, inbox, self._tell)
        listening = threading.Thread(target=self._listen, args=(part, bridge, inbox, post, harming), name="posepipe:listen", daemon=True)
        beating = threading.Thread(target=self._beat_on, args=(part, inbox), name="posepipe:beat", daemon=True)
        listening.start()
        beating.start()
        fault: PosepipeError | None = None
        try:
            fault = self._work(part)
        except PosepipeError as e:
            fault = e
        except Exception as e:
            logging.getLogger(f"posepipe.{self._name}").exception("%s", e)
            fault = stopped_by(e)
        finally:
            part.close()
            self._over.set()
            beating.join(2.0)
            self._beat(part, inbox, closed=True)
            self._tell(letters.Fault.of(fault) if fault is not None else letters.Done())
            inbox.close()
            post.close()

    def _work(self, part: Part) -> PosepipeError | None:
        part.open()
        # Before it is said: looking through what compilers leave behind takes some tenths of a second, in which cameras would not be listened to.
        gc.collect()
        gc.freeze()  # what was loaded so far stays: the collector need not walk it between two frames
        infos = {
            slot.plan.key or slot.plan.base: dataclasses.asdict(slot.node.info)
            for slot in part.slots.values()
            if hasattr(slot.node, "info")
        }
        runs_on = {name: text for name, slot in part.slots.items() if (text := getattr(slot.node, "runs_on", ""))}
        self._tell(letters.Opened(infos, runs_on))
        while not self._go.wait(0.5):
            if self._shared.stop.is_set():
                return stopped_by(self._shared.failure) if self._shared.failure is not None else None
        for slot in part.slots.values():
            if hasattr(slot.node, "begin_rounds_together"):
                slot.node.begin_rounds_together(self._start.round_s)
        self._shared.after = self._now_and_then
        if len(part.feeds) == len(part.slots):
            # An instant under way goes before the next pictures. Otherwise one late instant slows the decoding of the next, which is then
            # late as well, and so on until one is dropped: latency jumps from a fast rhythm to a slow one and stays there for seconds.
            os.nice(_BEHIND)
        part.start(self._start.start_ns, next_seq=self._start.next_seq)
        while part.running and self._shared.failure is None and not self._shared.stop.wait(0.1):
            pass
        while part.running and self._shared.failure is None and any(f.is_alive() for f in part.feeds):
            time.sleep(0.02)
        if not part.feeds and self._shared.failure is None:  # what is upstream ends first, in other processes
            while part.running and self._shared.failure is None:
                time.sleep(0.02)
        stuck = part.drain(timeout_s=_DRAIN_S)
        return part.fault(stuck, timeout_s=_DRAIN_S)

    # listening ----------------------------------------------------------------------------------------------------------------

    def _listen(self, part: Part, bridge: Bridge, inbox: Inbox, post: Post, harming: Harming) -> None:
        """Everything the supervisor says. When it is gone, so is the studio: finish what can be finished, and go."""
        while (heard := self._line.receive()) is not None:
            letter, fds = heard
            match letter:
                case letters.Ring(camera, writes, replaces):
                    ring = FrameRing.attach(fds[0])
                    self._pictures.give(camera, ring, writes=writes, replaces=replaces)
                    self._tell(letters.Have(ring.id))
                case letters.Listen(ip):
                    self._listen_far(inbox, post, ip or self._job.ip)
                case letters.Addresses(number, peers):
                    assert post.far is not None
                    post.far.know({worker: Peer(*peer) for worker, peer in peers.items()}, within_s=_CONNECTED_WITHIN_S)
                    self._tell(letters.Have(number))
                case letters.Start():
                    self._start = letter
                    for node in letter.ended:
                        bridge.writer_is_gone(node)
                    self._go.set()
                case letters.Stop():
                    self._shared.stop.set()
                case letters.Gone(worker):
                    bridge.reader_is_gone(worker, self._tap)
                case letters.Ended(node):
                    bridge.writer_is_gone(node)
                case letters.Echo(node):
                    self._tell(_newest(part.slots[node]))
                case letters.Harm():
                    harming.do(letter)
                case _:
                    raise AssertionError(letter)
        self._shared.stop.set()
        if not self._over.wait(1.0):
            os._exit(1)

    def _listen_far(self, inbox: Inbox, post: Post, ip: str) -> None:
        assert post.far is not None
        try:
            here = inbox.listen_far(post.far, ip)
        except PosepipeError as e:
            self._shared.fail(e)
        else:
            self._tell(letters.Listens(here.address, here.key))

    # telling ------------------------------------------------------------------------------------------------------------------

    def _warn(self, text: str) -> None:
        self._tell(letters.Said(logging.WARNING, self._warns_as, text))

    def _now_and_then(self) -> None:
        """After each piece of work. What a killed worker had not yet told counts as lost with it: so not only with every beat."""
        now_ns = time.monotonic_ns()
        if now_ns - self._entered_ns > _ENTRIES_EVERY_NS:
            self._entered_ns = now_ns
            self._entries()

    def _entries(self) -> None:
        events = self._tap.take()
        for at in range(0, len(events), _ENTRIES_AT_ONCE):
            if not self._line.send(letters.Entries(events[at : at + _ENTRIES_AT_ONCE]), wait=False):
                self._tap.put_back(events[at:])
                return

    def _beat_on(self, part: Part, inbox: Inbox) -> None:
        while not self._over.wait(_BEAT_S):
            self._beat(part, inbox)

    def _beat(self, part: Part, inbox: Inbox, *, closed: bool = False) -> None:
        # Asked first: a publisher that is closed meanwhile raises, and what was taken to be told would be lost with this beat.
        subscribers = None if closed else part.subscribers()
        self._entries()
        shared, now_ns = self._shared, time.monotonic_ns()
        nodes = {}
        for name, slot in part.slots.items():
            new_ns = slot.latency.since(self._told.get(name, 0))
            self._told[name] = self._told.get(name, 0) + len(new_ns)
            since_ns = slot.busy_since_ns
            busy_s = (now_ns - since_ns) / 1e9 if since_ns else 0.0
            nodes[name] = letters.NodeBeat(new_ns.tobytes(), sum(map(len, slot.inputs)), slot.errors, max(busy_s, 0.0), slot.ended)
        end_ns, quality = shared.end_to_end.since(self._told_end), shared.quality.since(self._told_quality)
        self._told_end += len(end_ns)
        self._told_quality += len(quality)
        poses = next((p for s in reversed(part.slots.values()) if (p := s.cell.packet) is not None and isinstance(p.body, Poses)), None)
        strange = inbox.strange
        seen, sync = (glance(poses), poses.body.sync) if poses is not None else (None, None)
        self._tell(letters.Beat(nodes, end_ns.tobytes(), quality, seen, subscribers, strange, sync))
        if shared.trace is not None:
            packets, captures = shared.trace.take()
            for at in range(0, max(len(packets), len(captures)), _SPANS_AT_ONCE):
                part_of = slice(at, at + _SPANS_AT_ONCE)
                self._tell(letters.Spans(packets[part_of], captures[part_of]))


def _newest(slot: Slot) -> letters.Newest:
    packet = slot.cell.packet
    if packet is None:
        return letters.Newest(slot.name, -1, "")
    return letters.Newest(slot.name, packet.seq, echo.line(packet, slot.plan.caps))
