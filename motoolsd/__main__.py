"""`python -m motoolsd`.

Layer: cli.
"""

from motoolsd.cli import main

main()
