from lungseg_utils.cli import main

main(prog_name="lungseg")
