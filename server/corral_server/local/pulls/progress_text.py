"""Progress of a pull in words, for the log and for one line of a terminal."""

from __future__ import annotations

from corral_server.pull.progress import PullProgress, PullStage

BAR_WIDTH = 20


def size_text(size: float) -> str:
    """Return bytes in decimal units, such as ``1.3 GB``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def duration_text(seconds: float) -> str:
    """Return a duration such as ``1m20s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def percent(progress: PullProgress) -> int | None:
    """Return how much is pulled, None if the size is not known."""
    return None if not progress.total else min(100, 100 * progress.completed // progress.total)


def progress_text(progress: PullProgress) -> str:
    """Return one line: bar, percent, bytes, rate and time left, as far as they are known."""
    if progress.stage is not PullStage.PULLING:
        return str(progress.stage)
    share = percent(progress)
    if share is None:
        return f"{size_text(progress.completed)}  {size_text(progress.rate)}/s"
    filled = BAR_WIDTH * share // 100
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    left = f"  {duration_text(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    sizes = f"{size_text(progress.completed)} of {size_text(progress.total or 0)}"
    return f"[{bar}] {share:3} %  {sizes}  {size_text(progress.rate)}/s{left}"
