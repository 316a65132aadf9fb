"""Interactions that look like noise, each as a person reads it: the item between the user's other items, and what would fit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """key: as the log names it. title: for people, empty where there is none."""

    key: str
    title: str = ""

    @property
    def name(self) -> str:
        """The title, or the key where the title holds nothing to see."""
        return self.title if self.title.strip() else self.key


@dataclass(frozen=True)
class Suspect:
    """One interaction of `user` with `item`.

    location: where the reader finds it, as "line 4711". probability: of noise, 0..1. replacement: what would stand there, None
    where there is none. before, after: the user's items around it, oldest first, a few of each. is_noise: the truth, None where
    nobody knows it.
    """

    location: str
    user: str
    item: Item
    probability: float
    replacement: Item | None
    before: list[Item]
    after: list[Item]
    is_noise: bool | None = None
