"""The report as one page that a browser opens by itself: nothing is fetched, and nothing leaves it.

`sections` has what is written as HTML: tables (of `cells`), `figures`, notes and settings; `records` what is written as
JSON, with the prompts that `texts` finds, for `list.js`, which searches, filters and sorts, and `record.js`, which
opens one. `write` puts all into `page.html`.
"""

from .write import write_page

__all__ = ["write_page"]
