# The commands stand in ./x; these are their names for people who use just.

_list:
    @just --list

# Fetch PostgreSQL for demo and tests
setup *arguments:
    ./x setup {{arguments}}

# Run the demo on a throwaway PostgreSQL
demo *arguments:
    ./x demo {{arguments}}

# Run all tests; --matrix for every major
test *arguments:
    ./x test {{arguments}}

# Format, clippy, rustdoc, shellcheck
check:
    ./x check

# Check everything in deploy/
deploy *arguments:
    ./x deploy {{arguments}}

# Look at every page of the demo in chromium
browser *arguments:
    ./x browser {{arguments}}

# Rewrite the expected events of the fixtures
bless:
    ./x bless

# What CI runs
ci:
    ./x ci
