"""`python -P -m braingpt.data.cluster`, the documented entrance to `braingpt.data.prepare.cluster`."""

import sys

from braingpt.data.prepare.cluster import main

if __name__ == "__main__":
    sys.exit(main())
