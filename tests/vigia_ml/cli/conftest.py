"""The fixtures of the client's tests."""

from tests.vigia_ml.client.conftest import customers, key, server, working

__all__ = ["customers", "key", "server", "working"]
