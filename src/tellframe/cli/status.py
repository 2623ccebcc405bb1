"""Exit statuses: errors and verdicts are kept apart."""

from typing import Final

DONE: Final = 0
USAGE: Final = 2
SOME_FAILED: Final = 3
NONE_ANALYSED: Final = 4
FAKE_FOUND: Final = 10
INTERRUPTED: Final = 130

TEXT: Final = """exit status:
  0   done
  2   wrong usage, or the model could not be loaded
  3   some inputs could not be analysed
  4   no input could be analysed
  10  a fake was found (only with --fail-on fake)
  130 interrupted by Ctrl-C, without --watch; what was judged until then is written
"""
