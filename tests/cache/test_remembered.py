"""What a client remembers holds exactly as long as its numbers do, and is bounded."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from motools.cache import SyncCache
from motools.cache.remembered import ANSWERS_MAX, ENTRIES_DEFAULT, REPORTED_KEY_SIZE_MAX, REPORTED_KEYS_MAX, Memory
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX
from motoolsd.wire.keys import STAMPS_SIZE_BYTES, Kind, slot_of
from motoolsd.wire.messages import Lookup, Used
from tests.cache.scripted import Talk, answer_to, scripted_daemon, serve
from tests.cache.stamped import StampsFile, hits_told, hits_told_at_last, next_question

THREAD_TIMEOUT_S = 30.0
TALK_TIMEOUT_S = 10.0


@pytest.fixture
def stamps(cache_dir: Path) -> StampsFile:
    """The file of a cache directory."""
    return StampsFile(cache_dir)


def memory_of(stamps: StampsFile, entries_max: int = 100) -> Memory:
    """A memory that has the file mapped."""
    memory = Memory(str(stamps.path.parent), entries_max)
    assert memory.attach(stamps.identity)
    return memory


def question(*keys: str, kind: Kind = Kind.DATASET) -> Lookup:
    """A lookup."""
    return Lookup(kind=kind, keys=list(keys))


def learn(memory: Memory, key: str, value: bytes | None = b"file", kind: Kind = Kind.DATASET) -> None:
    """Ask for a key and remember the answer, as a client does."""
    request = question(key, kind=kind)
    memory.remember(request, memory.numbers_of(request), [value])


def knows(memory: Memory, key: str, kind: Kind = Kind.DATASET) -> bool:
    """Whether a key is answered from memory."""
    return memory.find(question(key, kind=kind)) is not None


def held(memory: Memory) -> int:
    """Answers in both generations."""
    generations = (memory._young, memory._old)  # noqa: SLF001 - their size is the promise
    return sum(len(answers) for generation in generations for answers in generation.values())


def opened(
    directory: Path,
    *,
    memory_entries: int = ENTRIES_DEFAULT,
    timeout_s: float = TALK_TIMEOUT_S,
    on_unavailable: Literal["raise", "miss"] = "raise",
) -> SyncCache:
    """A client of a scripted daemon."""
    return SyncCache(
        directory,
        autostart=False,
        memory_entries=memory_entries,
        timeout_s=timeout_s,
        on_unavailable=on_unavailable,
    )


# What holds, and for how long.


def test_answer_is_given_again_until_its_number_changes(stamps: StampsFile) -> None:
    """A change of its key ends it, once and for all; a change of others does not."""
    memory = memory_of(stamps)
    learn(memory, "d", b"file")
    stamps.change("another key")
    assert memory.find(question("d")) == ["file"]
    stamps.change("d")
    assert memory.find(question("d")) is None
    learn(memory, "d", b"new")
    assert memory.find(question("d")) == ["new"]


def test_miss_is_remembered_as_one(stamps: StampsFile) -> None:
    """That there is nothing is an answer, and holds until something is stored."""
    memory = memory_of(stamps)
    learn(memory, "d", None)
    assert memory.find(question("d")) == [None]
    stamps.change("d")
    assert memory.find(question("d")) is None


def test_change_between_question_and_answer_is_not_overlooked(stamps: StampsFile) -> None:
    """The number was read before the daemon was asked: an answer that was overtaken never holds."""
    memory = memory_of(stamps)
    request = question("d")
    before = memory.numbers_of(request)
    stamps.change("d")
    memory.remember(request, before, [b"old"])
    assert memory.find(request) is None


def test_several_keys_are_answered_together_or_not_at_all(stamps: StampsFile) -> None:
    """One that is not known, or not true any more, has the daemon asked for all: a write is seen whole."""
    memory = memory_of(stamps)
    for key in ("a", "b"):
        learn(memory, key, key.encode())
    assert memory.find(question("b", "a", "b")) == ["b", "a", "b"]
    assert memory.find(question("a", "c")) is None
    stamps.change("b")
    assert memory.find(question("a", "b")) is None
    assert memory.find(question("a")) == ["a"]


def test_kinds_are_told_apart(stamps: StampsFile) -> None:
    """One key of two kinds is two entries."""
    memory = memory_of(stamps)
    learn(memory, "k", b"file", Kind.DATASET)
    learn(memory, "k", b"model", Kind.MODEL)
    assert memory.find(question("k", kind=Kind.MODEL)) == ["model"]
    assert memory.find(question("k", kind=Kind.DATASET)) == ["file"]
    assert memory.find(question("k", kind=Kind.EVAL)) is None


def test_values_are_texts_as_the_daemon_would_give_them(stamps: StampsFile) -> None:
    """Names that are no UTF-8 too."""
    memory = memory_of(stamps)
    learn(memory, "d", b"caf\xe9")
    assert memory.find(question("d")) == [os.fsdecode(b"caf\xe9")]


def test_dataset_is_found_by_the_shortest_way_too(stamps: StampsFile) -> None:
    """What `datasets` and `numbers` say is what `find` says."""
    memory = memory_of(stamps)
    learn(memory, "d", b"file")
    value, slot, number = memory.datasets["d"]
    assert (value, slot) == ("file", slot_of(Kind.DATASET, "d"))
    assert memory.numbers[slot] == number
    stamps.change("d")
    assert memory.numbers[slot] != number


# How much.


@pytest.mark.parametrize("entries_max", [1, 2, 3, 4, 5, 10, 33])
def test_never_more_is_remembered_than_allowed(entries_max: int, stamps: StampsFile) -> None:
    """Whatever is learnt, used and learnt again, of whichever kind: not one above the limit, at any moment."""
    memory, randomness = memory_of(stamps, entries_max), random.Random(entries_max)
    for _ in range(1000):
        key, kind = str(randomness.randrange(3 * entries_max)), randomness.choice(list(Kind))
        if randomness.random() < 0.5:
            learn(memory, key, kind=kind)
            assert knows(memory, key, kind), "what was learnt last is known"
        else:
            memory.find(question(key, kind=kind))
        assert held(memory) <= entries_max


def test_one_large_question_is_bounded_too(stamps: StampsFile) -> None:
    """More keys than there is room for: the last ones stay."""
    memory = memory_of(stamps, 10)
    request = question(*map(str, range(100)))
    memory.remember(request, memory.numbers_of(request), [b"x"] * 100)
    assert held(memory) <= 10
    assert knows(memory, "99")
    assert not knows(memory, "0")


def test_what_was_not_used_goes_first(stamps: StampsFile) -> None:
    """An answer in use outlives any number of others; one that is not goes with them."""
    memory = memory_of(stamps, 10)
    for key in ("used", "unused"):
        learn(memory, key)
    for number in range(100):
        learn(memory, str(number))
        assert knows(memory, "used")
    assert not knows(memory, "unused")


def test_nothing_is_remembered_where_nothing_may_be(stamps: StampsFile) -> None:
    """With 0 entries the file is not even mapped."""
    memory = Memory(str(stamps.path.parent), 0)
    assert not memory.attach(stamps.identity)
    assert not memory.attach(None)
    assert memory.find(question("d")) is None


def test_threads_that_look_up_do_not_disturb_the_one_that_learns(stamps: StampsFile) -> None:
    """However they interleave: no error, no answer that belongs to another key."""
    memory, wrong, is_over = memory_of(stamps, 20), list[object](), threading.Event()

    def look_up(seed: int) -> None:
        randomness = random.Random(seed)
        try:
            while not is_over.is_set():
                key = str(randomness.randrange(40))
                if (answers := memory.find(question(key))) not in (None, [key]):
                    wrong.append((key, answers))
        except Exception as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=look_up, args=(seed,)) for seed in range(4)]
    try:
        for thread in threads:
            thread.start()
        for number in range(5_000):
            key = str(number % 40)
            learn(memory, key, key.encode())
            stamps.change(str(number % 7))
    finally:
        is_over.set()
        for thread in threads:
            thread.join(THREAD_TIMEOUT_S)
        sys.setswitchinterval(interval_s)
    assert wrong == []


# Which file.


def test_attaching_again_keeps_what_is_remembered(stamps: StampsFile) -> None:
    """A new connection to a daemon of the same file: nothing is asked anew."""
    memory = memory_of(stamps)
    learn(memory, "d")
    generation = memory.generation
    assert memory.attach(stamps.identity)
    assert knows(memory, "d")
    assert memory.generation == generation


@pytest.mark.parametrize("identity", [None, (1, 2)], ids=["no file", "another file"])
def test_another_daemons_file_ends_what_is_remembered(identity: tuple[int, int] | None, stamps: StampsFile) -> None:
    """Its answers are not compared with numbers that are not its own."""
    memory = memory_of(stamps)
    learn(memory, "d")
    generation = memory.generation
    assert not memory.attach(identity)
    assert not knows(memory, "d")
    assert memory.datasets == {}
    assert memory.generation != generation
    assert memory.attach(stamps.identity)
    assert not knows(memory, "d")


def test_file_at_the_path_that_is_not_the_daemons_is_not_mapped(stamps: StampsFile) -> None:
    """A directory that was replaced: the path leads to somebody else's numbers."""
    memory = Memory(str(stamps.path.parent), 100)
    other = StampsFile(stamps.path.parent)
    assert not memory.attach(stamps.identity)
    assert memory.attach(other.identity)


def short(path: Path) -> None:
    """One byte is missing."""
    path.write_bytes(bytes(STAMPS_SIZE_BYTES - 1))


def linked(path: Path) -> None:
    """A link to the file."""
    path.with_name("elsewhere").write_bytes(bytes(STAMPS_SIZE_BYTES))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [None, short, linked, os.mkfifo, Path.mkdir])
def test_what_is_no_file_of_stamps_is_not_mapped(make: Callable[[Path], object] | None, cache_dir: Path) -> None:
    """Not there, cut, a link, a pipe, a directory: every lookup asks the daemon, and nothing hangs or fails."""
    cache_dir.mkdir()
    path = cache_dir / "stamps"
    identity = (1, 2)
    if make is not None:
        make(path)
        identity = (path.stat().st_dev, path.stat().st_ino)
    attached: list[bool] = []
    # In a thread, because opening a pipe would wait for ever.
    attaching = lambda: attached.append(Memory(str(cache_dir), 100).attach(identity))  # noqa: E731
    thread = threading.Thread(target=attaching, daemon=True)
    thread.start()
    thread.join(TALK_TIMEOUT_S)
    assert attached == [False]


def test_detaching_forgets_and_the_next_numbers_say_so(stamps: StampsFile) -> None:
    """What was asked before belongs to another generation; nothing is compared with a file that is gone."""
    memory = memory_of(stamps)
    learn(memory, "d")
    entry, generation = memory.datasets["d"], memory.generation
    memory.detach()
    assert (memory.datasets, knows(memory, "d"), memory.generation == generation) == ({}, False, False)
    assert memory.numbers[entry.slot] != entry.number
    assert memory.attach(stamps.identity)
    learn(memory, "d")
    assert knows(memory, "d")


def test_removed_file_is_read_on_until_somebody_looks(stamps: StampsFile) -> None:
    """The mapping outlives the name; settling says that nothing is to be believed any more."""
    memory = memory_of(stamps)
    learn(memory, "d")
    assert memory.settle()
    stamps.path.unlink()
    assert knows(memory, "d")
    stamps.change("d")
    assert not knows(memory, "d")
    assert not memory.settle()


def test_settling_notices_that_the_path_leads_elsewhere(stamps: StampsFile) -> None:
    """Another file of the same name, or a directory that was moved away."""
    memory = memory_of(stamps)
    other = StampsFile(stamps.path.parent)
    assert not memory.settle()
    assert memory.attach(other.identity)
    assert memory.settle()
    stamps.path.parent.rename(stamps.path.parent.with_name("moved"))
    assert not memory.settle()


# What was used.


def told(memory: Memory) -> dict[Kind, dict[str, int]]:
    """What is to be reported, by kind."""
    return {notice.kind: dict(notice.hits) for notice in memory.take_used()}


def use(memory: Memory, hashes: Sequence[str]) -> None:
    """Answer datasets by the shortest way, as the clients do."""
    for dataset_hash in hashes:
        memory.used.append(dataset_hash)
        if memory.is_due:
            memory.settle()


def test_use_is_counted_by_kind_and_key_and_told_once(stamps: StampsFile) -> None:
    """By whichever way it was answered; what was not answered is no use."""
    memory = memory_of(stamps)
    for key in ("a", "b"):
        learn(memory, key)
        learn(memory, key, kind=Kind.EVAL)
    states = [memory.has_used]
    memory.find(question("a", "b", kind=Kind.EVAL))
    memory.find(question("a", kind=Kind.EVAL))
    memory.find(question("a", "unknown", kind=Kind.EVAL))
    memory.find(question("b"))
    use(memory, ["a", "a"])
    states.append(memory.has_used)
    assert told(memory) == {Kind.EVAL: {"a": 2, "b": 1}, Kind.DATASET: {"a": 2, "b": 1}}
    states.append(memory.has_used)
    assert states == [False, True, False]
    assert told(memory) == {}


def test_settling_keeps_the_counts(stamps: StampsFile) -> None:
    """It makes room for further answers; they are told later."""
    memory = memory_of(stamps)
    use(memory, ["a"] * (3 * ANSWERS_MAX) + ["b"])
    assert len(memory.used) < ANSWERS_MAX
    assert told(memory) == {Kind.DATASET: {"a": 3 * ANSWERS_MAX, "b": 1}}


def test_settling_is_due_after_a_thousand_answers(stamps: StampsFile) -> None:
    """Then it is time to look at the path, and to tell the daemon."""
    memory = memory_of(stamps)
    memory.used.extend(["d"] * (ANSWERS_MAX - 1))
    states = [memory.is_due]
    memory.used.append("d")
    states.append(memory.is_due)
    memory.settle()
    assert [*states, memory.is_due] == [False, True, False]


def test_counts_are_bounded_while_nobody_takes_them(stamps: StampsFile) -> None:
    """With the daemon away for hours, and millions of keys in use."""
    memory = memory_of(stamps)
    use(memory, list(map(str, range(5 * REPORTED_KEYS_MAX))))
    memory.settle()
    assert len(memory._counted[Kind.DATASET]) < 3 * REPORTED_KEYS_MAX  # noqa: SLF001 - its size is the promise
    (counted,) = told(memory).values()
    assert len(counted) == REPORTED_KEYS_MAX


def test_report_of_large_lookups_is_one_that_the_daemon_takes(stamps: StampsFile) -> None:
    """A notice with more keys than a message may hold is refused, and a refusal that nobody awaits ends everything."""
    memory = memory_of(stamps, 5 * KEYS_PER_REQUEST_MAX)
    for part in range(2):
        request = question(*(f"{part}-{number}" for number in range(KEYS_PER_REQUEST_MAX)))
        memory.remember(request, memory.numbers_of(request), [b"x"] * KEYS_PER_REQUEST_MAX)
        memory.find(request)
    assert all(len(counted) <= KEYS_PER_REQUEST_MAX for counted in told(memory).values())


def test_count_above_what_a_message_holds_is_cut(stamps: StampsFile) -> None:
    """An hour of hits without a daemon: a count of more than 31 bits would be refused, and end the connection."""
    memory = memory_of(stamps)
    use(memory, ["d"])
    memory.settle()
    memory._counted[Kind.DATASET]["d"] = 2**31 - 1  # noqa: SLF001 - as many hits would take an hour here, too
    use(memory, ["d"])
    assert told(memory) == {Kind.DATASET: {"d": 2**31 - 1}}


@pytest.mark.parametrize("kind", [Kind.DATASET, Kind.EVAL])
def test_long_keys_are_left_out_of_reports(kind: Kind, stamps: StampsFile) -> None:
    """Four megabytes of key are not sent to count one hit; the others are told all the same."""
    memory = memory_of(stamps)
    longest, longer = "x" * REPORTED_KEY_SIZE_MAX, "x" * (REPORTED_KEY_SIZE_MAX + 1)
    for key in (longest, longer):
        learn(memory, key, kind=kind)
        memory.find(question(key, kind=kind))
    assert told(memory) == {kind: {longest: 1}}


def test_answer_in_one_thread_and_a_report_in_another_do_not_meet(stamps: StampsFile) -> None:
    """Whoever counts in the middle of an answer counts it once, and no lookup fails of it."""
    memory, taken = memory_of(stamps), list[Used]()

    class Interrupted(list[Lookup]):
        """Another thread's turn comes after an append."""

        def append(self, each: Lookup) -> None:
            super().append(each)
            taken.extend(memory.take_used())

    learn(memory, "k", kind=Kind.EVAL)
    memory._lookups = Interrupted()  # noqa: SLF001 - where the other thread comes in
    assert knows(memory, "k", Kind.EVAL)
    taken += memory.take_used()
    assert [(notice.kind, notice.hits) for notice in taken] == [(Kind.EVAL, {"k": 1})]


def test_nothing_but_long_keys_is_no_report(stamps: StampsFile) -> None:
    """An empty notice would cost a frame and say nothing."""
    memory = memory_of(stamps)
    use(memory, ["x" * (REPORTED_KEY_SIZE_MAX + 1)])
    notices: list[Used] = memory.take_used()
    assert notices == []


# In the client.


def test_second_lookup_is_not_asked_until_its_number_changes(cache_dir: Path) -> None:
    """One question for any number of lookups; a change of the key, and of it alone, is one question more."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon, opened(cache_dir) as cache:
        for _ in range(2):
            assert [cache.get_file_id("d") for _ in range(5)] == ["value of d"] * 5
            assert cache.get_evals("m", ["t"], "inspect").missing == []
            assert cache.get_many("dataset", ["d", "d"]) == ["value of d"] * 2
            stamps.change("another")
        assert daemon.kinds().count("Lookup") == 2
        stamps.change("d")
        assert [cache.get_file_id("d") for _ in range(5)] == ["value of d"] * 5
        assert daemon.kinds().count("Lookup") == 3


def test_answer_that_a_change_overtook_is_given_and_not_remembered(cache_dir: Path) -> None:
    """It was true when it was asked for; the next lookup asks again."""
    stamps = StampsFile(cache_dir)

    def change_then_answer(talk: Talk) -> None:
        stamps.greet(talk)
        while (request := next_question(talk)) is not None:
            stamps.change("d")
            talk.reply(request, answer_to(request.body))

    with scripted_daemon(cache_dir, change_then_answer) as daemon, opened(cache_dir) as cache:
        assert [cache.get_file_id("d") for _ in range(3)] == ["value of d"] * 3
        assert daemon.kinds() == ["Lookup"] * 3


@pytest.mark.parametrize("obstacle", ["no file", "another file", "no room"])
def test_where_nothing_can_be_compared_every_lookup_asks(obstacle: str, cache_dir: Path) -> None:
    """A daemon without stamps, a path that leads to another file than the daemon's, and memory_entries=0."""
    stamps = StampsFile(cache_dir)
    if obstacle == "another file":
        StampsFile(cache_dir)
    script = serve if obstacle == "no file" else stamps.serve
    entries = 0 if obstacle == "no room" else 10
    with scripted_daemon(cache_dir, script) as daemon, opened(cache_dir, memory_entries=entries) as cache:
        assert [cache.get_file_id("d") for _ in range(3)] == ["value of d"] * 3
        assert daemon.kinds() == ["Lookup"] * 3


def test_use_is_told_with_the_next_question(cache_dir: Path) -> None:
    """In front of it, and each hit once; what was asked of the daemon is counted there."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon, opened(cache_dir) as cache:
        for key in "dddde":
            cache.get_file_id(key)
        assert daemon.kinds() == ["Lookup", "Used", "Lookup"]
        assert hits_told(daemon) == {"d": 3}
        cache.get_file_id("f")
        assert daemon.kinds() == ["Lookup", "Used", "Lookup", "Lookup"]


def test_every_hit_is_told_once(cache_dir: Path) -> None:
    """With questions, in between and at close; also the hit at which it is time to tell, by whichever way it came."""
    stamps, count = StampsFile(cache_dir), 3 * ANSWERS_MAX + 5
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        with opened(cache_dir) as cache:
            for _ in range(count):
                cache.get_file_id("d")
                cache.get_many("dataset", ["e"])
            for _ in range(2):
                cache.get_file_id("last")
        told = hits_told_at_last(daemon, 2 * count - 1)
    assert told == {"d": count - 1, "e": count - 1, "last": 1}


def test_use_is_told_after_a_thousand_hits_without_a_question(cache_dir: Path) -> None:
    """A job that only hits shows in the counts while it runs."""
    stamps, told = StampsFile(cache_dir), threading.Event()

    def take_notice(talk: Talk) -> None:
        stamps.greet(talk)
        while (request := talk.next()) is not None:
            if isinstance(request.body, Used):
                told.set()
            else:
                talk.reply(request, answer_to(request.body))

    with scripted_daemon(cache_dir, take_notice) as daemon, opened(cache_dir) as cache:
        for _ in range(ANSWERS_MAX + 2):
            cache.get_file_id("d")
        assert told.wait(TALK_TIMEOUT_S)
        assert daemon.kinds() == ["Lookup", "Used"]


def test_use_is_told_at_close(cache_dir: Path) -> None:
    """And nothing is asked for it."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon:
        with opened(cache_dir) as cache:
            for _ in range(4):
                cache.get_file_id("d")
        assert hits_told_at_last(daemon, 3) == {"d": 3}
        assert daemon.kinds() == ["Lookup", "Used"]


def test_use_of_large_answers_does_not_harm_the_next_question(cache_dir: Path) -> None:
    """A notice with more keys than a message holds would be refused; the refusal would be taken for an answer."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon, opened(cache_dir) as cache:
        parts = [[f"{part}-{number}" for number in range(6_000)] for part in range(2)]
        for part in [*parts, *parts]:
            assert len(cache.get_many("dataset", part)) == 6_000
        assert cache.get_file_id("d") == "value of d"
        assert [kind for kind in daemon.kinds() if kind != "Used"] == ["Lookup"] * 3


def test_hits_gather_nothing_while_another_thread_waits(cache_dir: Path) -> None:
    """What cannot be told yet is bounded: a waiting call may take half a minute, and hits are a million a second."""
    stamps, asked = StampsFile(cache_dir), threading.Event()

    def hold_second(talk: Talk) -> None:
        stamps.greet(talk)
        for number in range(2):
            request = next_question(talk)
            assert request is not None
            if number == 0:
                talk.reply(request, answer_to(request.body))
        asked.set()
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, hold_second), opened(cache_dir, timeout_s=2.0, on_unavailable="miss") as cache:
        cache.get_file_id("d")
        waiting = threading.Thread(target=lambda: cache.get_file_id("e"))
        waiting.start()
        assert asked.wait(TALK_TIMEOUT_S)
        for _ in range(10 * ANSWERS_MAX):
            cache.get_file_id("d")
        gathered = len(cache._memory.used)  # noqa: SLF001 - its size is the promise
        assert waiting.is_alive()
        waiting.join(TALK_TIMEOUT_S)
    assert gathered <= 2 * ANSWERS_MAX
