"""Fixtures of the tests of predictions."""

from tests.grapes import grapes

__all__ = ["grapes"]
