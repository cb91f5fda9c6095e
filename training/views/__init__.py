"""The registry over HTTP: parse, call one service, present."""
