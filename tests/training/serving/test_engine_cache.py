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
