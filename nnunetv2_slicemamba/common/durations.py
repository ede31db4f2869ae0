"""Durations as people read them."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """`seconds` in the two largest units that count: 3 d 4 h, 2 h 5 min, 3 min 20 s, 4.2 s."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"
