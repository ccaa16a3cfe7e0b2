from __future__ import annotations

import sys

from tests.vectors.compare import main

sys.exit(main(sys.argv[1:]))
