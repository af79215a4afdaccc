"""The benchmarks are not installed: they are imported from the checkout's root.

At the end of the path, where the root's mailbox/ does not hide the library's module of that name.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))
