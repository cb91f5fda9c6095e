"""gunicorn's own threaded worker with the processes, threads and keep-alive of Vigía's settings.

Not those settings themselves: they leave the listening to Vigía's worker.
"""

import os

bind = f"{os.environ['HOST']}:{os.environ['PORT']}"
worker_class = "gthread"
workers = 2
threads = 8
keepalive = 15
control_socket_disable = True
