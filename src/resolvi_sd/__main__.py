"""Entry point of `python -m resolvi_sd`, which runs the command `resolvi-sd`."""

from resolvi_sd.cli import main

main()
