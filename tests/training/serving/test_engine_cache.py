"""The cache of loaded versions in a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from training.models import ModelVersion
from training.serving import engine_cache

Keep = Callable[[int, int], None]


@pytest.fixture
def keep(churn: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Caches a version under its own number with a given size; the cache has room for a hundred bytes."""
    ready = engine_cache.served(churn.registered_model)
    engine_cache.forget()
    monkeypatch.setattr(engine_cache, "KEPT_BYTES", 100)

    def one_more(number: int, size: int) -> None:
        engine_cache._kept[number] = replace(ready, version_id=number, size=size)
        engine_cache._make_room()

    return one_more


def test_the_least_recently_used_version_is_evicted(keep: Keep) -> None:
    for number in (1, 2, 3):
        keep(number, 40)
    assert list(engine_cache._kept) == [2, 3]
    engine_cache.peek(2)
    keep(4, 40)
    assert list(engine_cache._kept) == [2, 4]


def test_an_index_larger_than_the_cache_does_not_evict_the_others(keep: Keep) -> None:
    keep(1, 40)
    keep(2, 5_000)
    keep(3, 40)
    assert list(engine_cache._kept) == [1, 2, 3]
    keep(4, 6_000)
    keep(5, 7_000)
    assert list(engine_cache._kept) == [1, 3, 4, 5]


def test_eviction_works_while_other_threads_read(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """`peek` moves entries without the lock."""

    class Asked:
        @property
        def size(self) -> int:
            engine_cache.peek(1)
            return 40

    keep(1, 40)
    monkeypatch.setitem(engine_cache._kept, 2, Asked())
    keep(3, 40)
    assert 3 in engine_cache._kept


SMAPS = """\
55d000000000-55d000200000 r-xp 00001000 fe:00 1234                       /usr/bin/python3.11
Rss:                1024 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000400000 r--p 00000000 fe:00 5678                       /lib/libbig.so
Private_Dirty:         0 kB
7f0000400000-7f0000900000 r-xp 00400000 fe:00 5678                       /lib/libbig.so
Private_Dirty:         0 kB
7f0001000000-7f0001900000 r-xp 00400000 fe:00 5679                       /lib/librelocated.so
Private_Dirty:         4 kB
7f0002000000-7f0002900000 r-xp 00000000 00:00 0
Private_Dirty:         0 kB
7f0003000000-7f0003001000 r-xp 00000000 00:00 0                          [vdso]
Private_Dirty:         0 kB
"""


def test_only_unchanged_code_of_files_is_unmapped() -> None:
    """Code that was compiled in memory, or changed when it was loaded, would be lost."""
    assert list(engine_cache.code_of_files(SMAPS)) == [
        (0x55D000000000, 0x55D000200000),
        (0x7F0000400000, 0x7F0000900000),
    ]
