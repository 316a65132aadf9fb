"""Times of a log as whole numbers, by all their digits."""

import re

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError

NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)
LARGEST = 2**63 - 1
FAST_DIGITS = 18  # whole numbers of so many digits fit in 64 bits, whatever they are
SEEMS_RECENT = 10**8  # seconds since 1970: in 1973
EARLIEST, LATEST = "1677-09-22", "2262-04-11"  # days whose nanoseconds since 1970 fit in 64 bits


class Times:
    """Collects the times of a log, chunk by chunk. All are numbers, or all are ISO 8601 dates: the first one tells.

    column: what the file calls them, for messages.
    """

    def __init__(self, column: str = "timestamp"):
        self.column = column
        self.chunks: list[tuple[np.ndarray, int]] = []  # whole numbers (n,) int64 of 10^-decimals, and the decimals
        self.are_dates: bool | None = None
        self.cut = 0  # times of more digits than 64 bits hold: decimals beyond these were cut

    def add(self, texts: list[str], where) -> None:
        """Append texts as they are written; `where(place)` names the file and line of one of them."""
        if self.are_dates is None:
            self.are_dates = parse_number(texts[0].strip()) is None
        self.chunks.append(self.dates(texts, where) if self.are_dates else self.numbers(texts, where))

    def numbers(self, texts: list[str], where) -> tuple[np.ndarray, int]:
        joined = "".join(texts)
        if joined.isascii() and joined.isdigit() and all(texts) and len(max(texts, key=len)) <= FAST_DIGITS:
            return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts)), 0
        if (decimals := same_decimals(texts, joined)) is not None:
            digits = (text.replace(".", "") for text in texts)
            return shortest(np.fromiter(map(int, digits), dtype=np.int64, count=len(texts)), decimals)
        parsed = [parse_number(text.strip()) for text in texts]
        for place, (text, number) in enumerate(zip(texts, parsed)):
            if number is None:
                raise InputError(f"{where(place)}: {self.column} {text!r} is {self.no_number(text)}")
            digits, decimals = number
            if decimals < 0 or abs(digits) // 10**decimals > LARGEST:
                raise InputError(f"{where(place)}: {self.column} {text!r} is beyond the whole numbers of 64 bits")
        decimals = max(decimals for _, decimals in parsed)
        largest = max(abs(digits) // 10**own for digits, own in parsed)
        fitting = decimals_that_fit(largest, decimals)
        self.cut += sum(own > fitting for _, own in parsed)
        return np.array([scaled(digits, own, fitting) for digits, own in parsed], dtype=np.int64), fitting

    def no_number(self, text: str) -> str:
        if not text.strip():
            return "empty"
        if not np.isnat(pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").to_datetime64()):
            return "a date, where the first one is a number"
        return "no number, as the first one is"

    def dates(self, texts: list[str], where) -> tuple[np.ndarray, int]:
        """Nanoseconds since 1970 of ISO 8601 dates (no zone: UTC)."""
        stripped = pd.Series(texts, dtype=str).str.strip()
        dates = pd.to_datetime(stripped, format="ISO8601", utc=True, errors="coerce")
        early, late = (pd.Timestamp(day, tz="UTC") for day in (EARLIEST, LATEST))
        good = dates.between(early, late).to_numpy()
        if not good.all():
            place = int(np.flatnonzero(~good)[0])
            raise InputError(
                f"{where(place)}: {self.column} {texts[place]!r} is {self.no_date(texts[place].strip(), dates[place], place)}"
            )
        return shortest(dates.dt.as_unit("ns").astype("int64").to_numpy(), 9)

    def no_date(self, text: str, date, place: int) -> str:
        if not text:
            return "empty"
        if not pd.isna(date):
            return f"not between {EARLIEST} and {LATEST}: nanoseconds since 1970 outside do not fit in 64 bits"
        if parse_number(text) is not None and (place or self.chunks):
            return "a number, where the first one is a date"
        return "neither a number nor an ISO 8601 date such as 2024-03-05 18:22"

    def result(self) -> tuple[np.ndarray, int]:
        """(times (N,) int64, decimals): all times are whole numbers of 10^-decimals of the file's unit."""
        if len(self.chunks) == 1:
            return shortest(*self.chunks[0])
        largest = max(int(np.abs(times // 10**own).max()) for times, own in self.chunks)
        decimals = decimals_that_fit(largest, max(own for _, own in self.chunks))
        self.cut += sum(int((times % 10 ** (own - decimals) != 0).sum()) for times, own in self.chunks if own > decimals)
        same = [
            times * 10 ** (decimals - own) if own <= decimals else times // 10 ** (own - decimals) for times, own in self.chunks
        ]
        return shortest(np.concatenate(same), decimals)


def same_decimals(texts: list[str], joined: str) -> int | None:
    """The number of decimals where all texts are digits, a point and as many digits behind it, few enough for 64 bits."""
    decimals = len(texts[0]) - 1 - texts[0].find(".")
    digits = joined.replace(".", "")
    if not (digits.isascii() and digits.isdigit() and len(joined) - len(digits) == len(texts)):
        return None
    longest, shortest_text = len(max(texts, key=len)), len(min(texts, key=len))
    if longest > FAST_DIGITS or shortest_text < decimals + 1 or shortest_text < 2:
        return None
    return decimals if all(text[-decimals - 1] == "." for text in texts) else None


def parse_number(text: str) -> tuple[int, int] | None:
    """(digits, decimals) of a decimal number: digits * 10^-decimals, exactly, without trailing zeros behind the point."""
    found = NUMBER.fullmatch(text)
    if not found or not (found[2] or found[3]):
        return None
    sign, whole, fraction, exponent = found.groups()
    digits = (whole + (fraction or "")).lstrip("0") or "0"
    decimals = len(fraction or "") - int(exponent or 0)
    if decimals > 0:
        kept = digits.rstrip("0")
        dropped = min(len(digits) - len(kept), decimals) if kept else decimals
        digits, decimals = digits[: len(digits) - dropped] or "0", decimals - dropped
    if len(digits) > 1000 or decimals < -FAST_DIGITS - 1:
        return 0, -1  # beyond 64 bits
    number = int(digits) * 10 ** max(-decimals, 0)
    return (-number if sign == "-" else number), max(decimals, 0)


def decimals_that_fit(largest: int, decimals: int) -> int:
    """The most decimals, at most `decimals`, with which a whole part up to `largest` fits in 64 bits."""
    while decimals and (largest + 1) * 10**decimals > LARGEST:
        decimals -= 1
    return decimals


def scaled(digits: int, own: int, decimals: int) -> int:
    """digits * 10^-own as a whole number of 10^-decimals; what does not fit is cut."""
    return digits * 10 ** (decimals - own) if own <= decimals else digits // 10 ** (own - decimals)


def shortest(times: np.ndarray, decimals: int) -> tuple[np.ndarray, int]:
    """The same times with as few decimals as they need."""
    while decimals and not (times % 10).any():
        times, decimals = times // 10, decimals - 1
    return times, decimals


def describe_range(log) -> str:
    """The first and the last time of a `Log`, as dates where they are dates or seem to be seconds, milliseconds … since 1970."""
    first, last = (int(time) / 10**log.decimals for time in (log.times.min(), log.times.max()))
    units = {"dates": 1} if log.times_are_dates else {"seconds": 1, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
    for unit, a_second in units.items():
        if log.times_are_dates or (first >= SEEMS_RECENT * a_second and last < SEEMS_RECENT * a_second * 1000):
            days = [str(pd.Timestamp(time / a_second, unit="s").date()) for time in (first, last)]
            return f"{days[0]} to {days[1]}" + ("" if log.times_are_dates else f" (taken as {unit} since 1970)")
    return f"{first:.15g} to {last:.15g}"


def far_from_most(log) -> np.ndarray:
    """(K,) records whose time is a hundred times more or less than most, where these are times since 1970: of other units, or broken."""
    times = np.abs(log.times) / 10**log.decimals
    median = np.median(times)
    if log.times_are_dates or median < SEEMS_RECENT:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero((times > 100 * median) | (times < median / 100))
