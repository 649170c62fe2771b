"""`python -m posepipe`."""

import sys

from posepipe.launch.cli import main

sys.exit(main())
