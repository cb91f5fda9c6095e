"""gunicorn's settings, for the local stack and for containers. Environment variables:

HOST and PORT (127.0.0.1:8000), WEB_CONCURRENCY (2 processes), WEB_THREADS (8 per process),
WEB_DRAIN_SECONDS (0; seconds for which idle connections stay open when gunicorn stops),
WEB_GRACEFUL_TIMEOUT (20 seconds after that for the requests under way).
"""

import os
import resource
from pathlib import Path
from typing import Any

from gunicorn.sock import TCPSocket

_host = os.environ.get("HOST") or "127.0.0.1"
_port = os.environ.get("PORT") or "8000"

bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"
# The event loop answers predictions, threads answer all other requests (docs/decisions/0016).
# Two processes: one can load a model while the other answers.
worker_class = "web.worker.WebWorker"
# The processes listen once they have loaded the application (`web.worker`). gunicorn would listen before, and
# a proxy's requests would wait for a new container instead of going to another one.
TCPSocket._is_listening = staticmethod(lambda sock: True)
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
threads = int(os.environ.get("WEB_THREADS") or 8)
# A tree ensemble would start a thread per core for every row, but the requests run in parallel already.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each process opens its own database connections and model sessions, which would break across a fork.
preload_app = False
# Files, the log and the database need file descriptors, too.
worker_connections = max(50, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100))
_drain_seconds = int(os.environ.get("WEB_DRAIN_SECONDS") or 0)
graceful_timeout = _drain_seconds + int(os.environ.get("WEB_GRACEFUL_TIMEOUT") or 20)
keepalive = 15  # seconds; a client that predicts row by row keeps its connection
# The prediction log has every prediction already.
accesslog = None
# Signals are enough: no control socket in the home directory.
control_socket_disable = True
# The heartbeat file must not wait for a slow disk.
if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK):  # noqa: S108
    worker_tmp_dir = "/dev/shm"  # noqa: S108


TRIM_SECONDS = 10.0  # a trim takes a millisecond, without the interpreter's lock


def on_starting(server: Any) -> None:
    """Empties the directory in which the processes write their numbers for /metrics."""
    from core.metrics import multiprocess_dir

    multiprocess_dir.begin("web")


def pre_exec(server: Any) -> None:
    """SIGUSR2 starts a new master with the same sockets: this one's processes must not end them."""
    from web import sharing

    sharing.add_master()


def post_fork(server: Any, worker: Any) -> None:
    worker.drain_seconds = _drain_seconds


def _keep_the_heap_small() -> None:
    """Limits glibc to two heaps, and returns large buffers to the system at once. By default glibc creates a
    heap for every contending thread and keeps the memory of large bodies in each, so a web process grows with
    its threads."""
    import ctypes

    arena_max, mmap_threshold = -8, -3  # of mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # no other C library has it
    if mallopt is not None:
        mallopt(arena_max, 2)
        mallopt(mmap_threshold, 2**20)


def post_worker_init(worker: Any) -> None:
    """Loads the active versions after the fork, so that the first request does not wait for them.

    A thread loads them: a process that cannot load them yet (no database, an artifact of another
    scikit-learn) still answers, and reports the error.
    """
    import gc
    import threading

    from core.background import PeriodicThread
    from training.serving import engine_cache
    from web.metrics import exporter

    # The modules loaded so far stay loaded, so the collector need not scan them. Nor need it run for every
    # few hundred short-lived objects of a large request. But views, requests and serializers are cycles that
    # hold complete answers, so the second and third generation must be collected often.
    gc.freeze()
    gc.set_threshold(10_000, 5, 3)
    _keep_the_heap_small()

    threading.Thread(target=engine_cache.warm_up, name="warm-up", daemon=True).start()
    PeriodicThread(engine_cache.trim_heap, every=TRIM_SECONDS, name="trim")
    exporter.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Writes the waiting log entries before the process ends, then the waiting shadow predictions, then the
    metrics."""
    from predictions.log import writer
    from predictions.rollouts import shadow_worker
    from web.metrics import exporter

    writer.close()
    shadow_worker.close()
    exporter.close()


def child_exit(server: Any, worker: Any) -> None:
    """Removes the gauges of an ended process. Runs in the master, however the process ended."""
    from core.metrics import multiprocess_dir

    multiprocess_dir.process_ended(worker.pid)
