"""Ids that the SDK makes: UUIDv7, in the order in which they were made, and never two alike."""

from __future__ import annotations

import os
import time
import uuid

from crew_worker.ids import new_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_it_was_made() -> None:
    for _ in range(1000):
        before, text, after = time.time_ns(), new_id(), time.time_ns()
        id = uuid.UUID(text)
        assert str(id) == text
        assert (id.version, id.variant) == (7, uuid.RFC_4122)
        assert before // 1_000_000 <= id.int >> 80 <= after // 1_000_000


def test_no_two_are_alike_and_all_bits_of_chance_are_used() -> None:
    made = [uuid.UUID(new_id()).int for _ in range(5000)]
    assert len(set(made)) == len(made)
    chance = [bit for bit in range(80) if not 76 <= bit < 80 and not 62 <= bit < 64]
    for bit in chance:
        assert 1500 < sum(id >> bit & 1 for id in made) < 3500


def test_a_forked_child_makes_ids_of_its_own() -> None:
    new_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, " ".join(new_id()[-20:] for _ in range(50)).encode())
        os._exit(0)
    ours = {new_id()[-20:] for _ in range(50)}
    os.waitpid(child, 0)
    theirs = set(os.read(read, 4096).decode().split())
    os.close(read)
    os.close(write)
    assert len(theirs) == 50
    assert ours.isdisjoint(theirs)
