"""`python -m motools.cli`.

Layer: motools.cli.
"""

from motools.cli import main

main()
