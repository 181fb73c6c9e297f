"""``python -m corral_operator``."""

from corral_operator.main import main

main()
