"""gunicorn as Flask's documentation runs it: synchronous workers."""

workers = 2
control_socket_disable = True
