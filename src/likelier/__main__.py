"""`python -m likelier`: the command line, where its script is not on the path."""

import sys

from likelier.cli import main

sys.exit(main())
