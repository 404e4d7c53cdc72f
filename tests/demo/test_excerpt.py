from __future__ import annotations

from demo.excerpt import MARKED, excerpt, of_engine, of_new, whole

UP = """\
Pulumi: the embedded engine (no official pulumi CLI on PATH)
Previewing update (prod):

 +  docker:index:RemoteImage prod-002-web create
 +  pulumi-python:dynamic/lockstep:World shop-prod-002 create
Diagnostics:
  pulumi:pulumi:Stack (shop-prod):
    prod-001 -> prod-002: a new release; the data goes along on a fork

Outputs:
  ~ impact : {
      ~ says: "a" => "b"
    }

Resources:
    + 6 to create

Updating (prod):

 +  pulumi-python:dynamic/lockstep:World shop-prod-002 creating
    forking db-data from shop-prod_db-data_g2
    fork of db-data: copy, 16 of 46 MiB
 +  pulumi-python:dynamic/lockstep:World shop-prod-002 created (1.2s)
 ~  pulumi-python:dynamic/lockstep:Live live **updating failed** [diff: ~world]
Diagnostics:
  pulumi-python:dynamic/lockstep:Live (live):
    error: it did not pass its proof

Resources:
    + 6 created

Duration: 16s

nothing was switched
""".splitlines()


def test_of_an_update_the_impact_the_work_and_the_errors_are_shown() -> None:
    assert [line for line in excerpt(UP, of_engine()) if "…" not in line] == [
        "Pulumi: the embedded engine (no official pulumi CLI on PATH)",
        "    prod-001 -> prod-002: a new release; the data goes along on a fork",
        "Updating (prod):",
        "    forking db-data from shop-prod_db-data_g2",
        " +  pulumi-python:dynamic/lockstep:World shop-prod-002 created (1.2s)",
        " ~  pulumi-python:dynamic/lockstep:Live live **updating failed** [diff: ~world]",
        "  pulumi-python:dynamic/lockstep:Live (live):",
        "    error: it did not pass its proof",
        "nothing was switched",
    ]


def test_of_new_the_build_is_left_out_and_the_result_is_not() -> None:
    build = ["  building web", *(f"  Step {n}" for n in range(MARKED))]
    result = ["prod-001 is recorded", "  commit   abc", "next: lockstep up"]
    shown = [*excerpt([*build, *result], of_new())]
    assert shown == ["  building web", f"  … {MARKED} lines", *result]


def test_a_short_gap_is_not_marked_and_a_whole_output_has_none() -> None:
    lines = [str(n) for n in range(MARKED + 1)]
    assert [*excerpt(lines, whole)] == lines
    assert [*excerpt(lines, lambda line: line in "06")] == ["0", "6"]
    assert [*excerpt([*lines, "x"], lambda line: line in "0x")] == ["0", f"  … {MARKED} lines", "x"]
