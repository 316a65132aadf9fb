"""A log in, the same log out. From Python: `clean_log` takes and returns a pandas table."""

from denoise_code.cleaning.records import clean_log

__all__ = ["clean_log"]
