"""Standard protocols of other model servers, on the one path of every answer."""
