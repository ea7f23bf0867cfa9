"""`python -m featherflow`: the command line."""

from .cli import main

main()
