"""`python -m lungseg_utils` is `lungseg`."""

from lungseg_utils.cli import main

main(prog_name="lungseg")
