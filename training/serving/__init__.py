"""What a process needs to answer: loaded engines, and which version answers whom."""
