"""The release this host runs, declared: `pulumi up` makes images, config and data match it."""

from reconciler import program

program.run()
