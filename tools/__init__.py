"""Tools for developers: linters, generators, one-off measurements."""
