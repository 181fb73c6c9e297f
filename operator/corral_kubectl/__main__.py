"""``python -m corral_kubectl``: the same as ``kubectl-corral``."""

import sys

from corral_kubectl.main import main

sys.exit(main())
