"""The local stack: PostgreSQL, Valkey and the Procfile's processes, without Docker and without root.

Nothing in here imports Django. `docs/decisions/0002-local-stack.md` gives the reasons.
"""
