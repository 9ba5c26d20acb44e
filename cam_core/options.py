"""Options that are words: refused where they are given, with what is known."""

from collections.abc import Iterable


def one_of(option: str, got: object, known: Iterable[object]) -> None:
    """ValueError unless ``got`` is among the ``known``.

    >>> one_of("merge", "mean", ("sum", "product", "max"))
    Traceback (most recent call last):
    ValueError: merge is 'sum', 'product' or 'max', got 'mean'
    """
    *others, last = map(repr, known)
    if repr(got) not in (*others, last):
        raise ValueError(f"{option} is {', '.join(others)} or {last}, got {got!r}")
