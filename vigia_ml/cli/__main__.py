"""``python -m vigia_ml.cli``: the same as ``vigiactl``."""

from vigia_ml.cli import main

if __name__ == "__main__":
    main()
