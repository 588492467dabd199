"""What went wrong, in words for people, at a terminal or before a page."""

from __future__ import annotations

import errno

from anchorfield.renderer.errors import AnchorfieldError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def in_words(problem: BaseException) -> str:
    """A sentence that says what happened and, where that is known, what to do."""
    if isinstance(problem, AnchorfieldError):
        return str(problem)
    if out_of_memory(problem):
        return "out of memory: use --downscale 2, a smaller --cap, or close other programs"
    if disk_full(problem):
        return f"no space left: {problem}. Free some space; what was saved before is unchanged"
    return f"unexpected error: {type(problem).__name__}: {problem}"


def disk_full(problem: BaseException) -> bool:
    """Whether there was no more room for a file."""
    return isinstance(problem, OSError) and problem.errno in FULL_DISK


def out_of_memory(problem: BaseException) -> bool:
    """Whether memory ran out, of the machine or of the graphics card."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)
