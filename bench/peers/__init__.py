"""The services Vigía is measured beside. Each is written the way its own documentation teaches it."""
