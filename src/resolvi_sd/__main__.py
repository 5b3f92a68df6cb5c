"""`python -m resolvi_sd` is the command `resolvi-sd`."""

from resolvi_sd.cli import main

main()
