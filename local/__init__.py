"""The local stack: PostgreSQL, Valkey and the Procfile's processes, with no Docker and no root.

Nothing in here imports Django. Read `docs/decisions/0002-local-stack.md` for the reasons.
"""
