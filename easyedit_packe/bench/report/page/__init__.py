"""The report as one page that a browser opens by itself: nothing is fetched, and nothing leaves it.

`tables` and `settings` are written into the page as HTML, `records` as JSON that `page.js` lists, filters and sorts.
"""

from .write import write_page

__all__ = ["write_page"]
