# Everyday commands. `just` alone lists them.

_list:
    @just --list --unsorted

# Start the server in development mode
run:
    cargo run --release

# Place a demo call to the running development server
call:
    cargo run --release -- demo call

# Formatting, lints, unit and property tests: the inner loop
quick:
    tests/run quick

# Everything that must pass before a change lands
test:
    tests/run

# Write schema/schema.graphql from the code
sdl:
    cargo run -p tests --bin sdl > schema/schema.graphql.new && mv schema/schema.graphql.new schema/schema.graphql

# Run simulator seeds, e.g. `just sim 0..1000`
sim seeds="0..200":
    cargo run -p tests --bin sim -- --seeds {{seeds}}

# Calls per second, CPU and memory beside SIPp's own ceiling (10 minutes; by hand, on an idle machine)
bench-sip:
    tests/bench/sip
