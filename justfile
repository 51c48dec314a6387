# Shorter names for the steps of .ci/run, which is the one list of what is checked.

# The recipes.
default:
    @just --list

# Format, lints and documentation: what to run before each commit.
check:
    .ci/run format lints documentation

# All tests that `cargo test` runs.
test:
    .ci/run tests

# The ways to break the crate: models, kills at every instruction, refusals, soak.
crash:
    .ci/run loom crash fuzz

# That all benches run, and the instructions of each operation.
bench:
    .ci/run benches

# Everything that must pass before a change lands, or the steps that are named.
ci *steps:
    .ci/run {{steps}}
