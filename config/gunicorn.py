"""gunicorn's settings, for the local stack and for a container alike; each can be set in the environment.

HOST and PORT (127.0.0.1:8000), WEB_CONCURRENCY (2 processes), WEB_THREADS (8 per process),
WEB_GRACEFUL_TIMEOUT (20 seconds for requests under way when asked to stop).
"""

import os
import resource
from pathlib import Path
from typing import Any

_host = os.environ.get("HOST") or "127.0.0.1"
_port = os.environ.get("PORT") or "8000"

bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"
# Predictions are answered in the event loop, everything else by threads (docs/decisions/0016).
# Two processes: one can load a model while the other answers.
worker_class = "web.worker.WebWorker"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
threads = int(os.environ.get("WEB_THREADS") or 8)
# A tree ensemble would start a thread per core for every row asked for: here the requests run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each process opens its own database connections and model sessions; inherited through fork they would break.
preload_app = False
# Files, the log and the database need some as well.
worker_connections = max(50, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100))
graceful_timeout = int(os.environ.get("WEB_GRACEFUL_TIMEOUT") or 20)
keepalive = 15  # seconds; a client that predicts row by row keeps its connection
# Every prediction is in the log already.
accesslog = None
# No control interface in the home directory: signals are enough.
control_socket_disable = True
# The heartbeat file must not wait for a slow disk.
if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK):  # noqa: S108
    worker_tmp_dir = "/dev/shm"  # noqa: S108


def on_starting(server: Any) -> None:
    """The processes will leave their numbers for /metrics in a directory that is empty now."""
    from core.metrics import multiprocess_dir

    multiprocess_dir.begin("web")


def _keep_the_heap_small() -> None:
    """Two heaps for all threads, and large buffers given back at once: glibc makes a heap for every thread
    that meets another, keeps what large bodies left in each, and a web process grows with all its threads."""
    import ctypes

    arena_max, mmap_threshold = -8, -3  # of mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # no other C library has it
    if mallopt is not None:
        mallopt(arena_max, 2)
        mallopt(mmap_threshold, 2**20)


def post_worker_init(worker: Any) -> None:
    """Loads the active versions after the fork, so that the first request does not wait for it.

    In a thread: a process that cannot load yet (no database, an artifact of another scikit-learn) still
    answers, and says what is wrong.
    """
    import gc
    import threading

    from training.serving import engine_cache
    from web.metrics import exporter

    # What was loaded so far stays: the collector need not walk it again and again. And it need not come for
    # every few hundred of the short-lived objects that a large request is made of. But views, requests and
    # serializers are cycles that hold whole answers: the second and third generation must not wait long.
    gc.freeze()
    gc.set_threshold(10_000, 5, 3)
    _keep_the_heap_small()

    threading.Thread(target=engine_cache.warm_up, name="warm-up", daemon=True).start()
    exporter.start()


def worker_exit(server: Any, worker: Any) -> None:
    """What was promised to the log is written before the process ends; then what shadows are to be asked, and
    what was counted."""
    from predictions.log import writer
    from predictions.rollouts import shadow_worker
    from web.metrics import exporter

    writer.close()
    shadow_worker.close()
    exporter.close()


def child_exit(server: Any, worker: Any) -> None:
    """In the first process, however the other one ended: its queue is no more."""
    from core.metrics import multiprocess_dir

    multiprocess_dir.process_ended(worker.pid)
