"""What single steps of an answer cost: `make bench-micro`."""
