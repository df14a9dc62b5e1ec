"""`python -m edgehmn`: the command line."""

from edgehmn.cli import main

main()
