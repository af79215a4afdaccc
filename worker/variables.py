"""The environment variables that more than one part reads."""

from typing import Final

URL_VARIABLE: Final = "QUEUE_CORE_URL"
FILE_VARIABLE: Final = "QUEUE_CORE_CONFIG"
