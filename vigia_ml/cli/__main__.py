"""``python -m vigia_ml.cli`` is `vigiactl`."""

from vigia_ml.cli import main

main()
