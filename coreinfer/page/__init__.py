"""What people see in a browser: the files of the page that a server shows at ``/``, and the data behind them.

The page is written by hand and asks nobody but its own server for anything. Nothing here needs torch.
"""

from coreinfer.page.compare import compare
from coreinfer.page.files import CSP, files
from coreinfer.page.overview import overview

__all__ = ["CSP", "compare", "files", "overview"]
