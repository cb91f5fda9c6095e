"""gunicorn settings of Flask's documentation: synchronous workers."""

workers = 2
control_socket_disable = True
