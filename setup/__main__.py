"""`python3 -m setup`: everything that `make demo` and `make test` need, each step done once."""

import sys
from concurrent.futures import ThreadPoolExecutor

if sys.version_info < (3, 11):  # noqa: UP036 (this is where it is found out)
    sys.exit(f"Lockstep needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")

from setup import base_images, compose_plugin, docker_engine, pulumi_command, shop_env, virtualenv
from setup.steps import SetupError, say

WHICH_PULUMI = """
import os, pathlib
from cli import engines
print(engines.choose(os.environ, pathlib.Path.cwd()).says)
"""


def make_environment() -> None:
    virtualenv.ensure()
    virtualenv.compile_ours()
    pulumi_command.ensure()


def main() -> int:
    try:
        with ThreadPoolExecutor() as beside:
            environment = beside.submit(make_environment)
            docker_engine.ensure()
            images = beside.submit(base_images.ensure)
            environment.result()
            compose_plugin.ensure()
            images.result()
        shop_env.ensure()
        say(virtualenv.python(WHICH_PULUMI))
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
