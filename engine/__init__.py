"""An engine for Pulumi programs of a narrow kind, in one process with the program.

It speaks Pulumi's protocol with the official Python SDK and keeps state, history and config in the
layout of Pulumi's file backend, so the official CLI can go on where it stopped, and the other way
round. What it does not have it refuses by name. How it is shown is its caller's business.

    stack = Stack(Project.find(Path.cwd()), "prod")
    result = operations.up(stack, display, Options(message="release prod-004"))
"""
