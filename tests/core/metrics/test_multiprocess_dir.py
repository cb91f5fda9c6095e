"""The files of ended processes: their counts stay, and no later process takes them for its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from core.metrics import multiprocess_dir


def test_a_later_process_with_the_same_id_counts_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(multiprocess_dir.VARIABLE, str(tmp_path))
    key = mmap_key("answered", "answered_total", (), (), "Answers.")
    for value in (5.0, 2.0):
        counter = MmapedDict(str(tmp_path / "counter_77.db"))
        assert counter.read_value(key)[0] == 0.0
        counter.write_value(key, value, 0.0)
        counter.close()
        MmapedDict(str(tmp_path / "gauge_liveall_77.db")).close()
        multiprocess_dir.process_ended(77)
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    assert not list(tmp_path.glob("gauge_*.db"))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(tmp_path))
    assert registry.get_sample_value("answered_total") == 7.0
