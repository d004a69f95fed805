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

# Run simulator seeds, e.g. `just sim 0..1000 --small` (`--wrong LostRenewal`: a wrong version; `--trace`: shows one)
sim seeds="0..1000" *options="":
    cargo run --profile sim -p tests --bin sim -- --seeds {{seeds}} {{options}}

# Kill the real server N times under load and compare what was acknowledged with the ledger
kill-loop kills="100":
    cargo build --workspace --bins && cargo run -p tests --bin kill-loop -- {{kills}}

# Time from a start with 5,000 live calls to the first new one, over 100 kills (10 minutes; by hand)
bench-recovery:
    tests/bench/recovery

# Calls per second, CPU and memory beside SIPp's own ceiling (10 minutes; by hand, on an idle machine)
bench-sip:
    tests/bench/sip

# Is a wrong password refused as soon as an unknown user? (4 minutes; by hand, on an idle machine)
bench-strangers *ARGS:
    tests/bench/registrar strangers {{ARGS}}

# 50,000 phones registered and refreshed, 1,000 a second (3 minutes; by hand, on an idle machine)
bench-registrations *ARGS:
    tests/bench/registrar refreshes {{ARGS}}

# 200,000 calls: is memory flat, is everything gone afterwards? (13 minutes; by hand, on an idle machine; RIG names the rig's folder)
bench-soak *ARGS:
    tests/bench/soak {{ARGS}}

# Ten times as many calls as can be carried: how much of the goodput is kept (4 minutes; by hand, on an idle machine; RIG names the rig's folder)
bench-overload *ARGS:
    tests/bench/overload {{ARGS}}

# A phone beside 5,000 silent, slow and half-open peers (a minute; by hand)
bench-sockets:
    tests/bench/sockets

# Journal benchmark beside the rig's programs; RIG names the rig's folder
bench-journal *ARGS:
    tests/bench/journal {{ARGS}}
