"""Counts of verdicts: the last line of `detect`, and its exit status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tellframe.cli import status
from tellframe.types import Label, Verdict


@dataclass
class Tally:
    """What verdicts add up to."""

    total: int = 0
    failed: int = 0
    labels: Counter[Label] = field(default_factory=Counter)
    """Of those that did not fail."""
    fakes: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one."""
        self.total += 1
        self.fakes += verdict.label is Label.FAKE
        if verdict.error is None:
            self.labels[verdict.label] += 1
        else:
            self.failed += 1

    def __str__(self) -> str:
        """Return all counts but those that are 0, in words."""
        from tellframe.report.words import number_of  # loaded late: `--help` needs none of it

        parts = [
            f"{self.labels[label]:,} {label}"
            for label in (Label.FAKE, Label.REAL, Label.INCONCLUSIVE)
            if self.labels[label]
        ]
        if self.failed:
            parts.append(f"{self.failed:,} could not be analysed")
        return f"{number_of(self.total, 'video')}: {', '.join(parts)}"

    def status(self, *, fail_on_fake: bool, watched: bool = False) -> int:
        """Return the exit status; a fake that was asked for goes before inputs that failed.

        Args:
            fail_on_fake: whether it was asked for.
            watched: whether there need not have been any input.
        """
        if fail_on_fake and self.fakes:
            return status.FAKE_FOUND
        if self.failed == self.total and not (watched and not self.total):
            return status.NONE_ANALYSED
        return status.SOME_FAILED if self.failed else status.DONE
