"""Where a server's time goes, by cProfile; the program under it runs about twice as long, so trust the order only."""

import pstats
from pathlib import Path

SHOWN = 40


def show(file: Path) -> None:
    """Print the functions of a profile that took most time themselves."""
    stats = pstats.Stats(str(file))
    stats.strip_dirs().sort_stats("tottime").print_stats(SHOWN)
